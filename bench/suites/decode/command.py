"""The decoder beside the machine's bandwidth and beside llama.cpp, all in one run.

    python -m bench.decode

measures each section, prints what was asked and what was seen, and writes decoder.json, a pyperf
suite, to results/<cpu>/. Figures are named as in llama-bench: "pp N" reads a prompt of N tokens,
"tg N" generates N tokens from an empty context.
"""

from __future__ import annotations

import argparse

from rich.console import Console

from bench.core import goals
from bench.core.command import (
    add_output,
    add_sections,
    chosen_folder,
    introduce,
    make_console,
    make_parser,
    tell,
)
from bench.core.errors import first_line
from bench.core.goals import Goal
from bench.core.measure import MAX_SHARE
from bench.core.pyperf_files import save_suite
from bench.core.results import DECODER
from bench.engines import llama_cpp
from bench.suites.decode.cases import DecodeOptions
from bench.suites.decode.sections import PEERS, SECTIONS
from ternops.threads import check_threads

#: Characters in a line, where the output is no terminal.
_WIDTH = 200


def main(argv: list[str] | None = None) -> int:
    """0 if all went well, 1 if a check failed, 2 for a wrong argument."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        threads = check_threads(arguments.threads)
        folder = chosen_folder(arguments.output, DECODER, arguments.force)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    console = make_console(_WIDTH)
    introduce(console, folder, [threads])
    options = DecodeOptions(threads, *((16, 5) if arguments.quick else (32, 9)))
    found: list[Goal] = []
    for section in _sections(console, arguments, options):
        with console.status(f"{section}: {SECTIONS[section].__doc__}"):
            for figure in SECTIONS[section](options):
                line = f"{figure.what}: {figure.words[1]} ({figure.remark})"
                console.print(line, highlight=False)
                found.append(figure)
    tell(console, "left out", options.notes)
    if options.cases:
        save_suite(folder / DECODER, options.cases)
    if found:
        console.print(goals.asked(found))
    return _failed(console, found)


def _sections(console: Console, arguments: argparse.Namespace, options: DecodeOptions) -> list[str]:
    """Those that were asked for and can be measured here."""
    wanted = [each for each in SECTIONS if each in (arguments.only or SECTIONS)]
    if arguments.no_peers or not set(wanted) & set(PEERS):
        return [each for each in wanted if not (arguments.no_peers and each in PEERS)]
    try:
        version, remark = llama_cpp.about()
    except ImportError as error:
        options.notes.append(f"{', '.join(PEERS)}: llama.cpp: {first_line(error)}")
        return [each for each in wanted if each not in PEERS]
    console.print(f"{version}{f' ({remark})' if remark else ''}", highlight=False)
    options.version = version
    return wanted


def _failed(console: Console, found: list[Goal]) -> int:
    """1 for what no machine can excuse: a share above all that was read, which shows that the limit
    was missed, and output that should be the same and is not."""
    wrong = [
        f"{each.what}: {each.words[1]}; the probe missed the limit"
        for each in found
        if each.unit == "%" and each.seen > MAX_SHARE
    ]
    wrong += [f"{each.what}: {each.remark}" for each in found if each.seen == 0]
    tell(console, "failed", wrong, "red")
    return 1 if wrong or not found else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("bench.decode", __doc__)
    add_sections(parser, SECTIONS, quick="fewer tokens and rounds", alone="without llama.cpp")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all")
    add_output(parser)
    return parser
