"""The kernels beside the machine's limits and beside other engines, all in one run.

    python -m bench.kernels --quick

prints a table for each section, then what was asked and what was seen, and writes kernels.json, a
pyperf suite, and the roofline drawn from it to results/<cpu>/.
"""

from __future__ import annotations

import psutil
from rich.console import Console

from bench import engines
from bench.core import command, goals
from bench.core.envelope import TIER
from bench.core.errors import ResultsError
from bench.core.kernels import GEMM_PARTS, Timings
from bench.core.measure import Case, interleave
from bench.core.pyperf_files import save_suite
from bench.core.results import KERNELS_FILE
from bench.pages import kernels as kernel_tables
from bench.pages.plots import roofline
from bench.suites.kernels import goals as kernel_goals
from bench.suites.kernels.sections import SECTIONS, Group, KernelOptions

_WIDTH = 150
_WITH_PEERS = ("peers", "published")


def main(argv: list[str] | None = None) -> int:
    """0 if all went well, 1 if a check failed, 2 for a wrong argument."""
    parser = command.make_parser("bench.kernels", __doc__)
    command.add_sections(
        parser, SECTIONS, quick="fewer shapes and rounds: minutes",
        alone="none of the other engines",
    )  # fmt: skip
    command.add_options(parser)
    arguments, console, folder, threads = command.begin(parser, argv, KERNELS_FILE, _WIDTH)
    options = KernelOptions(threads, arguments.quick)
    sections = [each for each in SECTIONS if each in (arguments.only or SECTIONS)]
    if not arguments.no_peers and set(sections) & set(_WITH_PEERS):
        options.engines, options.notes = engines.find()
        for engine in options.engines:
            console.print(f"{engine.name}: {engine.version}", highlight=False)
    cases: list[Case] = []
    for section in sections:
        measured = _measure(console, section, options)
        _print(console, section, Timings(measured))
        cases += measured
    command.tell(console, "left out", options.notes)
    if cases:
        save_suite(folder / KERNELS_FILE, cases)
        try:
            console.print(f"roofline: {roofline.draw(folder)[0]}", highlight=False)
        except ResultsError as error:
            command.tell(console, "no roofline", [str(error)])
    results = Timings(cases)
    if found := kernel_goals.goals(results, TIER):
        console.print(goals.asked(found))
    failures = [*options.failures, *kernel_goals.beyond(results)]
    command.tell(console, "failed", failures, "red")
    return 1 if failures or not cases else 0


def _measure(console: Console, section: str, options: KernelOptions) -> list[Case]:
    groups = SECTIONS[section](options)
    cases: list[Case] = []
    with command.progress(console) as start:
        advance = start(section, sum(group.rounds + 1 for group in groups))
        for group in groups:
            try:
                cases += _run(group, advance)
            except MemoryError as error:
                options.notes.append(f"{group.name}: {error}")
    return cases if section == "limits" else Timings(cases).without_slower_limits()


def _run(group: Group, advance: command.Advance) -> list[Case]:
    free = psutil.virtual_memory().available
    if group.memory > free:
        raise MemoryError(f"needs {group.memory / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    cases = group.build()
    last = cases[-1].name if cases else ""
    if group.rounds:
        interleave(cases, group.rounds, lambda name: advance(name) if name == last else None)
    else:  # measured elsewhere
        advance(group.name)
    for case in cases:
        case.release()
    return cases


def _print(console: Console, section: str, results: Timings) -> None:
    title = f"{section}: {SECTIONS[section].__doc__}"
    if section == "limits":
        console.print(kernel_tables.limits(results, title), "")
    elif section == "published":
        console.print(kernel_tables.published(results, title), "")
    elif results.products:
        shown = [each for each in results.products if each.how not in GEMM_PARTS]
        console.print(kernel_tables.products(results, title, shown), "")
    if section == "gemm":
        console.print(kernel_tables.gemm_account(results), "")
