"""The decoder beside the machine's bandwidth and beside llama.cpp, all in one run.

    python -m bench.decode

measures each section, prints what was asked and what was seen, and writes decoder.json, a pyperf
suite, to results/<cpu>/. Figures are named as in llama-bench: "pp N" reads a prompt of N tokens,
"tg N" generates N tokens from an empty context.
"""

from __future__ import annotations

import argparse

from rich.console import Console

from bench.core import command, goals
from bench.core.errors import first_line
from bench.core.measure import MAX_SHARE
from bench.core.pyperf_files import save_suite
from bench.core.results import DECODER_FILE
from bench.engines import llama_cpp
from bench.suites.decode.cases import DecodeOptions
from bench.suites.decode.sections import PEERS, SECTIONS
from ternops.threads import check_threads

_WIDTH = 200


def main(argv: list[str] | None = None) -> int:
    """0 if all went well, 1 if a check failed, 2 for a wrong argument."""
    parser = command.make_parser("bench.decode", __doc__)
    command.add_sections(
        parser, SECTIONS, quick="fewer tokens and rounds", alone="without llama.cpp"
    )
    command.add_options(parser, one_count=True)
    arguments, console, folder, (threads,) = command.begin(
        parser, argv, DECODER_FILE, _WIDTH, lambda count: [check_threads(count)]
    )
    options = DecodeOptions(threads, *((16, 5) if arguments.quick else (32, 9)))
    found: list[goals.Goal] = []
    for section in _sections(console, arguments, options):
        with console.status(f"{section}: {SECTIONS[section].__doc__}"):
            for goal in SECTIONS[section](options):
                line = f"{goal.what}: {goal.words[1]} ({goal.remark})"
                console.print(line, highlight=False)
                found.append(goal)
    command.tell(console, "left out", options.notes)
    if options.cases:
        save_suite(folder / DECODER_FILE, options.cases)
    if found:
        console.print(goals.asked(found))
    return _failed(console, found)


def _sections(console: Console, arguments: argparse.Namespace, options: DecodeOptions) -> list[str]:
    """Those that were asked for and can be measured here."""
    wanted = [each for each in SECTIONS if each in (arguments.only or SECTIONS)]
    alone = [each for each in wanted if each not in PEERS]
    if arguments.no_peers or alone == wanted:
        return alone
    try:
        options.version, remark = llama_cpp.about()
    except ImportError as error:
        options.notes.append(f"{', '.join(PEERS)}: llama.cpp: {first_line(error)}")
        return alone
    console.print(f"{options.version}{f' ({remark})' if remark else ''}", highlight=False)
    return wanted


def _failed(console: Console, found: list[goals.Goal]) -> int:
    """1 for what no machine can excuse: a share above all that was read, which shows that the limit
    was missed, and output that should be the same and is not."""
    wrong = [
        f"{each.what}: {each.words[1]}; the probe missed the limit"
        for each in found
        if each.unit == "%" and each.seen > MAX_SHARE
    ]
    wrong += [f"{each.what}: {each.remark}" for each in found if each.seen == 0]
    command.tell(console, "failed", wrong, "red")
    return 1 if wrong or not found else 0
