"""How fast is ternary here, is it lossless, and what does the paper say?

    python -m bench.run --arch auto --quick

measures the machine's limits, proves the tiny checkpoint lossless, measures every size, engine and
encoding beside those limits, prints the tables, and writes pyperf suites, plots and an HTML report
to a folder of its own. Rows are named as in llama-bench: "tg32" generates 32 tokens from an empty
context, "pp512" reads a prompt of 512.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench.core import command
from bench.core.envelope import about, host_arch, resumed
from bench.core.errors import ResultsError, first_line
from bench.core.measure import MAX_SHARE
from bench.core.mpi import check_ranks
from bench.core.process import INTERRUPTED, WorkerError
from bench.core.results import ENGINES, FP16, LLAMA, RUN_FILE, Probe, Results, Row, load, save
from bench.core.table import Table
from bench.limits import levels as limits
from bench.pages import compare, plot, report, run_tables
from bench.published import cost_fit
from bench.suites.lossless import proof as lossless
from bench.suites.run import decoding, modelled, products, ranks, worker
from bench.suites.run.plan import DEFAULT, FULL, QUICK, Effort, Task, tasks_of
from ternops.cost.layouts import LAYOUTS, SIZES
from ternops.tuning import SECONDS

_WIDTH = 180
#: Seconds that tuning may take in a quick run: for what rewards most.
_QUICK_TUNING = SECONDS / 2


def main(argv: list[str] | None = None) -> int:
    """0 if all went well, 1 if a check failed, 2 for a wrong argument, 130 if interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    console = command.make_console(_WIDTH)
    try:
        if arguments.compare:
            return _compare(console, arguments.compare, arguments.fail_if_slower)
        if arguments.fail_if_slower is not None:
            raise ValueError("--fail-if-slower: needs --compare OLD NEW")
        if arguments.arch not in ("auto", host_arch()):
            return _elsewhere(console, arguments, words)
        run = _Run(console, arguments, words)
    except (TypeError, ValueError, OSError, ImportError) as error:
        parser.error(" ".join(str(error).split()))
    try:
        failures = run.measure()
    except KeyboardInterrupt:
        run.finish()
        words = [f"{run.folder} has what was measured; --resume goes on"]
        command.tell(console, "interrupted", words)
        return INTERRUPTED
    except (ValueError, OSError) as error:  # of a child process, or of a full disk
        failures = [" ".join(str(error).split())]
    command.tell(console, "failed", failures, "red")
    return 1 if failures else 0


class _Run:
    """A run: what to do, and what has been found so far."""

    def __init__(self, console: Console, arguments: argparse.Namespace, argv: list[str]) -> None:
        self._console = console
        self._effort = QUICK if arguments.quick else FULL if arguments.full else DEFAULT
        self._threads = command.chosen_threads(arguments.threads)
        self._sizes = _chosen("sizes", arguments.sizes, self._effort.sizes, tuple(LAYOUTS))
        names = (*ENGINES, *([] if arguments.no_peers else LLAMA))
        self._engines = _chosen("engines", arguments.engines, names, (*ENGINES, *LLAMA))
        self._with_products = not arguments.no_peers
        self._ranks = arguments.ranks
        if self._ranks is not None:
            check_ranks(self._ranks, self._threads[-1])
        options = {
            "threads": self._threads, "engines": self._engines,
            "effort": {**asdict(self._effort), "sizes": None},
        }  # fmt: skip
        if self._ranks is not None:
            options["ranks"] = self._ranks
        self.folder = command.chosen_folder(
            arguments.output, RUN_FILE, arguments.force, arguments.resume
        )
        self._results = Results(about(host_arch(), argv, options))
        if arguments.resume and (self.folder / RUN_FILE).exists():
            old = load(self.folder)
            if old.about.get("options") != options:
                words = f"has other options, those of `{old.about.get('command')}`"
                raise ResultsError(f"--resume: {self.folder} {words}")
            old.about = resumed(old.about, self._about, self.folder)
            self._results = old
        command.introduce(console, self.folder, self._threads)

    def measure(self) -> list[str]:
        """Everything that has not been measured yet; a line for each check that failed."""
        few = self._effort == QUICK
        tiers = lossless.tiers(few)
        if "lossless" not in self._about:
            with command.progress(self._console) as start:
                advance = start(f"kernels for {', '.join(tiers)}", command.STEPS)
                lossless.compile_ahead(tiers, command.by_part(advance))
        command.tune(self._console, _QUICK_TUNING if few else SECONDS)
        with command.progress(self._console) as start:
            if "limits" not in self._about:
                advance = start("limits", limits.steps(self._threads))
                rounds = max(5, self._effort.rounds)
                self._about["limits"] = limits.measure(self._threads, rounds, advance)
                save(self.folder, self._results)
        self._print(run_tables.limits(self._results))
        with command.progress(self._console) as start:
            if "lossless" not in self._about:
                advance = start("lossless", lossless.steps(tiers, few))
                proof = lossless.prove(self._threads, tiers, advance, few)
                self._about["lossless"] = proof.as_json()
                save(self.folder, self._results)
        self._print(run_tables.lossless(self._results))
        for size in self._sizes:
            if size not in self._about["done"]:
                self._size(size)
        if self._with_products and "products" not in self._about:
            with command.progress(self._console) as start:
                advance = start("products", products.STEPS)
                self._about["products"], left_out = products.run(self._threads[-1], advance)
            self._about["left_out"] += left_out
        self.finish()
        return self._failures()

    def finish(self) -> None:
        """Print and write what was found."""
        save(self.folder, self._results)
        self._print(run_tables.fp16_beside_llama(self._results))
        self._print(run_tables.products(self._results))
        command.tell(self._console, "left out", self._about["left_out"])
        if self._results.rows:
            _draw(self._console, self.folder)

    @property
    def _about(self) -> dict[str, Any]:
        return self._results.about

    def _print(self, table: Table) -> None:
        if table.rows:
            self._console.print(table, "")

    def _size(self, size: str) -> None:
        free = psutil.virtual_memory().available
        tasks, left_out = tasks_of(size, self._engines, self._threads, self._effort, free)
        rows: list[Row] = []
        count = self._effort.processes
        with command.progress(self._console) as start:
            advance = start(size, count * sum(map(decoding.steps, tasks)))
            for task in tasks:
                found = [self._task(task, advance, left_out) for _ in range(count)]
                runs = [each for each, _ in found]
                if FP16 in self._engines and task is tasks[0]:
                    runs = [[*_modelled(each), *each] for each in runs]
                rows += map(modelled.with_joules, worker.merged(runs))
                self._results.probes += found[-1][1]
        shared = self._by_ranks(size, tasks, left_out) if self._ranks else []
        # All of a size or nothing: what is interrupted is measured again.
        self._results.rows = decoding.with_one_peak([*self._results.rows, *rows])
        if shared:
            self._about["ranks"] = [*self._about.get("ranks", []), *shared]
        self._about["left_out"] += dict.fromkeys(left_out)
        self._about["done"].append(size)
        save(self.folder, self._results)
        for is_decode in (True, False):
            self._print(run_tables.rows(self._results, is_decode, [size]))
        self._print(run_tables.ranks(self._results, [size]))

    def _by_ranks(self, size: str, tasks: list[Task], left_out: list[str]) -> list[dict[str, Any]]:
        """The same engines by several ranks, and what could not be."""
        measured: list[dict[str, Any]] = []
        free, rounds = psutil.virtual_memory().available, self._effort.rounds
        rounds *= self._effort.processes
        with command.progress(self._console) as start:
            count = sum(ranks.steps(task, rounds) for task in tasks)
            advance = start(f"{size}, {self._ranks} ranks", count)
            for task in tasks:
                found, lines = ranks.run(task, self._ranks, rounds, free, advance)
                measured += found
                left_out += lines
        return measured

    def _task(
        self, task: Task, advance: command.Advance, left_out: list[str]
    ) -> tuple[list[Row], list[Probe]]:
        """A process of a task; without its peers if it failed with them."""
        for attempt in (task, task.without_peers()) if task.peers else (task,):
            try:
                rows, probes, lines = worker.run(attempt, advance)
            except WorkerError as error:
                left_out.append(f"{task.name}: {first_line(error)}")
                continue
            left_out += lines
            return rows, probes
        return [], []

    def _failures(self) -> list[str]:
        found = lossless.failures(self._about["lossless"])
        if not self._results.rows:
            found.append("no size was measured")
        return found + [
            f"{row.name}: {row.share:.1%} of the {row.limited_by}; the probe missed the limit"
            for row in self._results.rows
            if row.share > MAX_SHARE
        ]


def _draw(console: Console, folder: Path) -> None:
    for path in [*plot.draw(folder), report.write(folder)]:
        console.print(f"wrote {path}", highlight=False)


def _modelled(rows: list[Row]) -> list[Row]:
    """fp16 rows for what has none, from the bandwidth beside the first engine that was measured."""
    found: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row.engine == FP16:
            return []
        if row.is_decode and row.limit:
            found.setdefault((row.test, row.threads), decoding.modelled_fp16(row))
    return list(found.values())


def _compare(console: Console, names: list[str], percent: str | None) -> int:
    try:
        slower = None if percent is None else compare.parse_percent(percent)
    except ValueError as error:
        raise ValueError(f"--fail-if-slower {error}") from None
    old, new = (compare.read(Path(each)) for each in names)
    table, failures = compare.compare(old, new, slower)
    console.print(table)
    command.tell(console, "failed", failures, "red")
    return 1 if failures else 0


def _elsewhere(console: Console, arguments: argparse.Namespace, argv: list[str]) -> int:
    """The paper's table for another architecture, from the cost model; nothing is measured."""
    arch = arguments.arch
    sizes = _chosen("sizes", arguments.sizes, tuple(SIZES), tuple(SIZES))
    results = modelled.results_for(arch, about(arch, argv, {}), sizes)
    output = arguments.output or f"results/{arch}-modelled"
    folder = command.chosen_folder(output, RUN_FILE, arguments.force)
    console.print(run_tables.rows(results, True, sizes), "")
    console.print(
        f"modelled: {results.about['cpu']}, all of it from the cost model fitted on the "
        f"paper's fp16 column and its ternary {cost_fit.FITTED} row",
        highlight=False,
    )
    command.tell(console, "left out", results.about["left_out"])
    save(folder, results)
    _draw(console, folder)
    return 0


def _chosen(
    what: str, chosen: list[str] | None, default: tuple[str, ...], known: tuple[str, ...]
) -> list[str]:
    for each in chosen or ():
        if each not in known:
            raise ValueError(f"--{what} {each}: expected some of {', '.join(known)}")
    return list(dict.fromkeys(chosen or default))


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("bench.run", __doc__)
    parser.add_argument("--arch", choices=("auto", "x86", "arm"), default="auto")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help=f"{_words(QUICK)}; minutes")
    effort.add_argument("--full", action="store_true", help=f"{_words(FULL)}; hours")
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", help=", ".join(LAYOUTS))
    known = ", ".join((*ENGINES, *LLAMA))
    parser.add_argument("--engines", nargs="+", metavar="ENGINE", help=known)
    parser.add_argument("--no-peers", action="store_true", help="without other libraries")
    parser.add_argument(
        "--ranks", type=int, metavar="N",
        help="decode with N ranks on this machine too, started by mpiexec, with as many threads in "
        "all",
    )  # fmt: skip
    command.add_options(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument(
        "--compare", nargs=2, metavar=("OLD", "NEW"),
        help="two result folders or pyperf files; measures nothing",
    )  # fmt: skip
    parser.add_argument(
        "--fail-if-slower", metavar="PERCENT", help="with --compare: exit 1 if a row is, by 5%% say"
    )
    return parser


def _words(effort: Effort) -> str:
    sizes = "all sizes" if len(effort.sizes) == len(SIZES) else ", ".join(effort.sizes)
    return f"{sizes}, tg{effort.tokens}, {effort.rounds * effort.processes} rounds"
