"""``python -m ternops allocate``: an encoding for each matrix, for a mean of so many bits."""

from __future__ import annotations

import argparse
from typing import Any

from ternops.commands import options


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "allocate", help="write a model as a packed file with an encoding for each matrix",
        description="Choose for each matrix of a float model the encoding that makes the measured "
        "errors of outputs least, for a mean of so many bits a weight, and write a packed file, "
        "which takes as much memory.",
    )  # fmt: skip
    parser.add_argument("source", metavar="SRC", help="what --model takes: a folder or a file")
    parser.add_argument("target", metavar="DST", help="the file to write")
    parser.add_argument(
        "--bits", type=float, required=True, metavar="B", help="a weight, scales included"
    )
    options.add_calibration_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.convert_allocated import allocate_model, shares
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.decoder.formats.paths import locate

    source = locate(arguments.source)
    checkpoint = open_checkpoint(source)
    seen = options.calibrate(arguments, checkpoint)
    found = allocate_model(checkpoint, source, arguments.target, arguments.bits, seen, options.note)
    parts = ", ".join(f"{share:.0%} {name}" for name, share in sorted(shares(found).items()))
    print(f"{arguments.target}: {found.bits:.3f} bits a weight, {parts}")
