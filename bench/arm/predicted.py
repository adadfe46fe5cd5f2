"""What the cost model says of ARM machines: every row "modelled", none measured."""

from __future__ import annotations

from dataclasses import replace

import ternops
from bench.arm.stored import Part, Speed
from bench.core.results import MODELLED
from bench.published import cost_fit, paper
from ternops.cost import Hardware, load, predict
from ternops.cost.layouts import SIZES
from ternops.cost.workload import FP16

#: Profiles.
MACHINES = ("m2-ultra", "cobalt-100", "graviton-3", "raspberry-pi-5")
#: That of the paper's table, and the encoding used there.
PAPERS, _PAPERS_ENCODING = cost_fit.MACHINES["arm"]
CONTEXT = cost_fit.CONTEXT


def measure() -> Part:
    """Decoding of the paper's sizes on every machine whose memory holds them."""
    rows, left_out = [], []
    for name in MACHINES:
        machine = replace(load(name), file="")  # errors then begin with the machine's name
        for size in paper.DECODE["arm"]:
            for encoding in encodings(name):
                try:
                    rows.append(_row(name, machine, size, encoding))
                except ValueError as error:
                    left_out.append(f"{size}, {encoding}: {error}")
    return Part({"ternops": ternops.__version__}, rows, left_out)


def encodings(profile: str) -> tuple[str, ...]:
    """What is predicted on a machine: the baseline first."""
    return (FP16, "two_bit", "base3", *([_PAPERS_ENCODING] if profile == PAPERS else []))


def _row(name: str, machine: Hardware, size: str, encoding: str) -> Speed:
    found = predict(SIZES[size], machine, encoding, context=CONTEXT)
    return Speed(
        name, machine.name, size, encoding, machine.threads, MODELLED, found.tokens_per_second,
        bool(found.unknown),
    )  # fmt: skip
