"""Published decoding speeds and energies that this benchmark is compared with.

Source: "1-bit AI Infra: Part 1.1, Fast and Lossless BitNet b1.58 Inference on CPUs",
arXiv:2410.16144, the tables of decoding speed at batch size 1. The fp16 column is llama.cpp with
fp16 weights, the ternary column is bitnet.cpp, both with all threads of the machine. The numbers
are copied as printed; a dash in a table (the model did not fit in memory) is None here. The
energies are from the same report's table of joules a token.
"""

from typing import NamedTuple

SOURCE = "arXiv 2410.16144"
"""Where the figures come from, as it is cited in a legend."""

CPUS = {"x86": "i7-13700H", "arm": "M2 Ultra"}
"""The CPU (Intel, Apple) behind the figures of each architecture."""


class Decode(NamedTuple):
    """One row of a decoding table, in tokens/s."""

    fp16: float | None
    ternary: float

    @property
    def speedup(self) -> float | None:
        """Ternary over fp16 speed; rounded to two decimals it is the printed speed-up."""
        return None if self.fp16 is None else self.ternary / self.fp16


# The tables call the size that has 2.7e9 parameters "2.5B"; it has the name of its layout here.
DECODE: dict[str, dict[str, Decode]] = {
    "x86": {
        "125M": Decode(164.04, 389.08),
        "350M": Decode(56.67, 172.95),
        "700M": Decode(30.73, 119.08),
        "1B": Decode(22.31, 86.50),
        "1.5B": Decode(15.02, 67.12),
        "2.7B": Decode(11.07, 46.33),
        "3.8B": Decode(5.85, 30.51),
        "7B": Decode(3.30, 18.75),
        "13B": Decode(1.78, 10.99),
        "30B": Decode(None, 5.10),
        "70B": Decode(None, 2.44),
        "100B": Decode(None, 1.70),
    },
    "arm": {
        "125M": Decode(434.40, 593.43),
        "350M": Decode(185.56, 281.51),
        "700M": Decode(114.47, 194.38),
        "1B": Decode(85.60, 169.45),
        "1.5B": Decode(60.95, 119.24),
        "2.7B": Decode(39.73, 96.21),
        "3.8B": Decode(28.31, 84.77),
        "7B": Decode(15.61, 52.36),
        "13B": Decode(8.79, 33.78),
        "30B": Decode(3.78, 17.07),
        "70B": Decode(1.71, 8.67),
        "100B": Decode(None, 6.58),
    },
}
"""Decoding speed by architecture ("x86", "arm") and model size."""


class Energy(NamedTuple):
    """One row of the energy table, in joules a token."""

    fp16: float | None
    ternary: float


# The row of 7B is copied at second hand; its saving on x86 is the 82.2% of the report's abstract.
ENERGY: dict[str, dict[str, Energy]] = {
    "x86": {
        "700M": Energy(1.367, 0.384),
        "7B": Energy(11.305, 2.017),
        "70B": Energy(None, 17.33),
    },
    "arm": {
        "700M": Energy(0.314, 0.140),
        "7B": Energy(3.013, 1.068),
        "70B": Energy(28.02, 8.42),
    },
}
"""Energy of decoding by architecture ("x86", "arm") and model size."""


def speedup(arch: str, size: str) -> float | None:
    """Return the published speed-up of ternary over fp16 decoding (a plain quotient).

    None when the architecture or the size is not in the tables, or fp16 did not fit in memory.
    """
    row = DECODE.get(arch, {}).get(size)
    return None if row is None else row.speedup
