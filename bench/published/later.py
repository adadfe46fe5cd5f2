"""Later published figures that the cost model is held against.

Copied as printed, from the sources named.
"""

from __future__ import annotations

from typing import NamedTuple

from ternops.cost.arithmetic import Decoder

#: Of THREADS, which are those of bitnet.cpp with BitNet b1.58 2B4T.
THREADS_SOURCE = "bitnet.cpp, CPU inference optimization notes, January 2026"


class Scaling(NamedTuple):
    """threads -> tokens/s of generating."""

    name: str
    generation: dict[int, float]


#: Profile -> figures.
THREADS = {
    "epyc-7v13": Scaling("AMD EPYC 7V13", {1: 15.49, 2: 28.58, 4: 49.32, 8: 66.25, 16: 62.23}),
    "i7-13800h": Scaling("Intel i7-13800H", {1: 13.28, 2: 19.11, 4: 19.12, 6: 20.00}),
    "cobalt-100": Scaling("Arm Cobalt 100", {1: 9.14, 2: 17.29, 4: 31.95, 8: 52.33}),
}

#: Of REPORT.
REPORT_SOURCE = "BitNet b1.58 2B4T Technical Report, arXiv 2504.12285, table 1"


class Reported(NamedTuple):
    """A model, whether its weights are ternary, and its printed joules for 512 tokens."""

    decoder: Decoder
    is_ternary: bool
    joules: float


REPORT = {
    "LLaMA 3.2 1B": Reported(Decoder(2048, 8192, 16, 32, 8, 64), False, 0.258),
    "Gemma 3 1B": Reported(Decoder(1152, 6912, 26, 4, 1, 256), False, 0.186),
    "Qwen2.5 1.5B": Reported(Decoder(1536, 8960, 28, 12, 2, 128), False, 0.347),
    "SmolLM2 1.7B": Reported(Decoder(2048, 8192, 24, 32, 32, 64), False, 0.425),
    "MiniCPM 2B": Reported(Decoder(2304, 5760, 40, 36, 36, 64), False, 0.649),
    "BitNet b1.58 2B4T": Reported(Decoder(2560, 6912, 30, 20, 5, 128), True, 0.028),
}
