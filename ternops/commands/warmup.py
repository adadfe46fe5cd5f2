"""``python -m ternops warmup``: compile kernels before they are needed."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("warmup", help="compile kernels ahead, several at a time")
    parser.add_argument("--products", action="store_true", help="not those of models")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    import ternops
    from ternops.commands import options

    decoder = not arguments.products
    try:
        with options.progress(f"kernels for {ternops.info()['tier'].split(':')[0]}") as show:
            seconds = ternops.warmup(decoder, show)
    except ModuleNotFoundError:  # no package for a bar: a line does
        ternops.warmup(decoder)
    else:
        print(f"compiled in {seconds:.1f} s, or there before")
