"""What the command lines of the benchmarks share: threads, the folder of results, progress."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from bench.core.errors import ResultsError
from bench.core.tiers import TIER
from ternops.system import cpu_model
from ternops.threads import check_threads, default_threads

#: Called with what was done whenever a step is done.
Advance = Callable[[str], None]


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m name`: options by their whole names, as runs record them."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}", description=description, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """--threads, --output and --force."""
    parser.add_argument("--threads", nargs="+", type=int, metavar="N", help="default: 1, 2 and all")
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """--output and --force."""
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
        taken, free = _numbered(folder, written)
        folder = taken if resume and taken else free
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--output {str(folder)!r}: {error.strerror}") from error
    return folder


def _numbered(folder: Path, written: str) -> tuple[Path | None, Path]:
    """The last of folder, folder-2, folder-3, ... that has results, and the first that has none."""
    taken = None
    for number in itertools.count(1):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        if not (candidate / written).exists():
            return taken, candidate
        taken = candidate
    raise AssertionError


def on_results(
    name: str, description: str, file: str, arguments: Sequence[str] | None,
    work: Callable[[Path], Iterable[Path | str]],
) -> int:  # fmt: skip
    """The main function of a module that works on a folder of results; prints what `work` gives.

    file: of results that are in such a folder. Returns 0, or 2 with one line on stderr.
    """
    parser = make_parser(name, description)
    parser.add_argument("folder", type=Path, metavar="RESULTS_FOLDER", help=f"has a {file}")
    options = parser.parse_args(arguments)
    try:
        print(*work(options.folder), sep="\n")
    except (ResultsError, OSError) as error:
        print(f"{name}: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: Exception) -> str:
    """An error's words, of a file that cannot be read its name and the reason."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def make_console(width: int) -> Console:
    """Of so many characters in a line, where the output is no terminal."""
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
    console.print(
        f"{cpu_model()}, tier {TIER}, "
        f"threads {', '.join(map(str, threads))}; results go to {folder}"
    )


class progress:
    """A progress bar; entering gives ``start(title, steps) -> advance(what)``."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[what]}"), console=console, transient=True,
        )  # fmt: skip
        self._console = console

    def __enter__(self) -> Callable[[str, int], Advance]:
        self._bar.__enter__()
        return self._start

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def _start(self, title: str, steps: int) -> Advance:
        task = self._bar.add_task(title, total=steps, what="")
        done = itertools.count(1)

        def advance(what: str) -> None:
            self._bar.update(task, advance=1, what=what)
            # A bar needs a terminal; a log gets a line for every fifth of the work.
            count = next(done)
            if not self._console.is_terminal and count * 5 // steps > (count - 1) * 5 // steps:
                self._console.print(f"{title}: {count * 100 // steps}%", highlight=False)

        return advance


def _slug() -> str:
    # Not LLVM's name of the CPU: a guess from a model number, which names an older one at times.
    words = f"{cpu_model()} {default_threads()} cpus"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
