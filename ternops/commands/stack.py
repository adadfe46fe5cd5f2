"""``python -m ternops stack``: a model of which as much is used as there is memory for."""

from __future__ import annotations

import argparse
from typing import Any

from ternops.commands import options
from ternops.files import behind_links, is_node


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "stack", help="write a model as residual blocks, of which --memory uses as many as it may",
        description="Write a float model as residual blocks of about a bit a weight (BitStack), "
        "sorted by what they are worth: commands that use the file take --memory 1.2GB.",
    )  # fmt: skip
    parser.add_argument("source", metavar="SRC", help="what --model takes: a folder or a file")
    parser.add_argument("target", metavar="DST", help="the file to write")
    parser.add_argument(
        "--blocks", type=int, default=16, metavar="N", help="of each matrix (default: 16)"
    )
    parser.add_argument(
        "--rank", type=int, default=16, metavar="K",
        help="of the magnitudes of a block: its factors take 16 K (rows + columns) bits "
        "(default: 16)",
    )  # fmt: skip
    options.add_calibration_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.convert_stack import stack_model
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.decoder.formats.paths import locate

    source = locate(arguments.source)
    checkpoint = open_checkpoint(source)
    found = options.calibrate(arguments, checkpoint)
    with options.progress("decomposing") as show:
        stack_model(
            checkpoint, source, arguments.target, arguments.blocks, arguments.rank, found, show,
            options.note,
        )  # fmt: skip
    target = behind_links(arguments.target)
    if not is_node(target):
        print(f"{arguments.target}: {_content(target)}")


def _content(target: Any) -> str:
    from ternops.decoder.formats.stack_file import StackFile

    least, *_, most = [*(sizes := StackFile(target).sizes), sizes[-1]]
    return f"{most:,} bytes of weights, of which --memory may use {least:,} and more"
