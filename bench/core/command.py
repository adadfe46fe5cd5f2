"""What the command lines of the benchmarks share: threads, the folder of results, progress."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

import ternops
from bench.core.envelope import TIER
from bench.core.errors import ResultsError
from ternops.commands.parser import Parser
from ternops.cpu_caches import cpu_model
from ternops.kernels import tuned
from ternops.threads import check_threads, default_threads
from ternops.tuning import SECONDS

#: Called with what was done whenever a step is done.
Advance = Callable[[str], None]
#: Of a bar for work that says which part of it is done.
STEPS = 20


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m name`: options by their whole names, as runs record them."""
    return Parser(
        prog=f"python -m {name}", description=description, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_options(parser: argparse.ArgumentParser, one_count: bool = False) -> None:
    """--threads, --output and --force."""
    threads: dict[str, Any] = {"nargs": "+", "help": "default: 1, 2 and all"}
    if one_count:
        threads = {"help": "default: all"}
    parser.add_argument("--threads", type=int, metavar="N", **threads)
    parser.add_argument("--output", metavar="DIR", help="default: a new folder results/<cpu>")
    parser.add_argument("--force", action="store_true", help="replace the results in the folder")


def add_sections(
    parser: argparse.ArgumentParser, sections: Iterable[str], quick: str, alone: str
) -> None:
    """--quick, --only and --no-peers; quick and alone: the help for the first and the last."""
    names = tuple(sections)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="SECTION", help=", ".join(names)
    )
    parser.add_argument("--no-peers", action="store_true", help=alone)


def chosen_threads(threads: list[int] | None) -> list[int]:
    """--threads, in order; TypeError or ValueError for what cannot be."""
    most = default_threads()
    chosen = sorted({check_threads(each) for each in threads or (1, min(2, most), most)})
    if chosen[-1] > most:
        raise ValueError(f"--threads {chosen[-1]}: expected at most the {most} usable CPUs")
    return chosen


def chosen_folder(
    output: str | None, written: str, force: bool = False, resume: bool = False
) -> Path:
    """The folder for results, made if need be: --output, or a new one in results/.

    written: a file of such results; where it is there already, they are kept unless `force` or
    `resume`. ValueError if that is not possible, or if the folder cannot be written to.
    """
    folder = Path(output or Path("results") / _slug())
    if output and not (force or resume) and (folder / written).exists():
        raise ValueError(f"--output {output!r}: has a {written} already; --force replaces it")
    if not output and not force:
        # folder, folder-2, folder-3, ...: the first without results, or the last with some.
        first = taken = folder
        for number in itertools.count(2):
            if not (folder / written).exists():
                break
            taken, folder = folder, first.with_name(f"{first.name}-{number}")
        folder = taken if resume else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--output {str(folder)!r}: {error.strerror}") from error
    return folder


def _slug() -> str:
    # Not LLVM's name of the CPU: a guess from a model number, which names an older one at times.
    words = f"{cpu_model()} {default_threads()} cpus"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def begin(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, written: str, width: int,
    choose: Callable[[Any], list[int]] = chosen_threads,
) -> tuple[argparse.Namespace, Console, Path, list[int]]:  # fmt: skip
    """The arguments, a console, the folder of results and the thread counts; or the exit code 2."""
    arguments = parser.parse_args(argv)
    try:
        threads = choose(arguments.threads)
        folder = chosen_folder(arguments.output, written, arguments.force)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    console = make_console(width)
    introduce(console, folder, threads)
    return arguments, console, folder, threads


def on_results(
    name: str, description: str, file: str, work: Callable[[Path], Iterable[Path | str]],
    argv: Sequence[str] | None = None,
) -> int:  # fmt: skip
    """The main function of a module that works on a folder of results; prints what `work` gives.

    file: of results that are in such a folder. Returns 0, or 2 with one line on stderr.
    """
    parser = make_parser(name, description)
    parser.add_argument("folder", type=Path, metavar="RESULTS_FOLDER", help=f"has a {file}")
    try:
        print(*work(parser.parse_args(argv).folder), sep="\n")
    except (ResultsError, OSError) as error:
        words = str(error)
        if isinstance(error, OSError) and error.filename:
            words = f"{error.filename}: {error.strerror}"
        print(f"{name}: {words}", file=sys.stderr)
        return 2
    return 0


def make_console(width: int) -> Console:
    """A console with lines of `width` characters where the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = width
    return console


def tell(console: Console, word: str, lines: Iterable[str], style: str = "yellow") -> None:
    """Print lines that begin with a word: what was left out, or has failed."""
    for line in lines:
        console.print(Text.assemble((word, style), f": {line}"))


def introduce(console: Console, folder: Path, threads: list[int]) -> None:
    """Print what is measured on, and where the results go."""
    counts = ", ".join(map(str, threads))
    console.print(f"{cpu_model()}, tier {TIER}, threads {counts}; results go to {folder}")


def tune(console: Console, seconds: float = SECONDS) -> None:
    """Tune this machine first, for so many seconds at most, unless a file fits it or tuning is off;
    say so either way."""
    if tuned.is_needed():
        with progress(console) as start:
            advance = by_part(start(f"tuning, {seconds:.0f} s at most", STEPS))
            try:
                ternops.tune(seconds, advance)
            except (ValueError, OSError) as error:
                tell(console, "not tuned", [" ".join(str(error).split())])
    console.print(f"tuning: {tuned.state()}", highlight=False)


def by_part(advance: Advance) -> Callable[[str, float], None]:
    """For work that says which part of it is done: a bar of STEPS steps."""
    done = 0

    def announce(what: str, part: float) -> None:
        nonlocal done
        while done < int(part * STEPS):
            done += 1
            advance(what)

    return announce


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int], Advance]]:
    """A progress bar: gives ``start(title, steps) -> advance(what)``."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"), console=console, transient=True,
    )  # fmt: skip

    def start(title: str, steps: int) -> Advance:
        task = bar.add_task(title, total=steps, what="")
        done = itertools.count(1)

        def advance(what: str) -> None:
            bar.update(task, advance=1, what=what)
            # A bar needs a terminal; a log gets a line for every fifth of the work.
            count = next(done)
            if not console.is_terminal and count * 5 // steps > (count - 1) * 5 // steps:
                console.print(f"{title}: {count * 100 // steps}%", highlight=False)

        return advance

    with bar:
        yield start
