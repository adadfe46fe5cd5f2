"""``python -m ternops tune``: what this CPU multiplies fastest with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ternops.commands import options

_STEPS = 100


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "tune", help="measure which tiles are the fastest here",
        description="Measure which tiles of the kernels are the fastest on this CPU, in 90 s at "
        "most, and keep them for later processes in a file that says how much they bring; "
        "TERNOPS_TUNING names another file, or is off. No result changes by it.",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    with shown() as announce:
        from ternops.tuning import tune

        path = tune(announce=announce)
    print(path)


@contextmanager
def shown() -> Iterator[Callable[[str, float], None]]:
    """Gives what `tune` tells its progress; in lines where rich is not installed."""
    try:
        with options.progress("tuning") as show:
            yield lambda what, part: show(round(part * _STEPS), _STEPS)
    except ModuleNotFoundError:
        told: list[str] = []

        def tell(what: str, part: float) -> None:
            if (first := what.split(",")[0]) not in told:
                told.append(first)
                options.note(f"tuning: {first}")

        yield tell
