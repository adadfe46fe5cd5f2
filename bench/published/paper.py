"""What others have published, from `figures.toml`, which names the sources."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from ternops.cost.arithmetic import Decoder


class Published(NamedTuple):
    """A speed (tokens/s) or an energy (joules a token) of fp16 and of ternary weights.

    fp16: None where the model did not fit in memory.
    """

    fp16: float | None
    ternary: float

    @property
    def speedup(self) -> float | None:
        """Ternary over fp16 speed; rounded to two decimals it is the printed speed-up."""
        return None if self.fp16 is None else self.ternary / self.fp16


class Scaling(NamedTuple):
    """generation: number of threads -> tokens/s."""

    name: str
    generation: dict[int, float]


class Reported(NamedTuple):
    """A model, whether its weights are ternary, and its printed joules for 512 tokens."""

    decoder: Decoder
    is_ternary: bool
    joules: float


_FIGURES: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("figures.toml").read_text("utf-8")
)


def _table(what: str) -> dict[str, dict[str, Published]]:
    return {
        arch: {size: Published(row.get("fp16"), row["ternary"]) for size, row in rows.items()}
        for arch, rows in _FIGURES["paper"][what].items()
    }


#: Of the two tables: by architecture ("x86", "arm") and model size.
SOURCE: str = _FIGURES["paper"]["source"]
DECODE, ENERGY = _table("decode"), _table("energy")
#: Architecture -> the CPU that was measured.
CPUS: dict[str, str] = _FIGURES["paper"]["cpus"]

#: Later figures that the cost model is compared with: of bitnet.cpp by profile, and of models.
THREADS_SOURCE: str = _FIGURES["threads"]["source"]
THREADS = {
    profile: Scaling(each["name"], {int(n): speed for n, speed in each["generation"].items()})
    for profile, each in _FIGURES["threads"]["machines"].items()
}
REPORT_SOURCE: str = _FIGURES["report"]["source"]
REPORT = {
    name: Reported(Decoder(*each["decoder"]), each["is_ternary"], each["joules"])
    for name, each in _FIGURES["report"]["models"].items()
}


def speedup(arch: str, size: str) -> float | None:
    """The published speed-up of ternary over fp16 decoding; None where the paper has no figure."""
    row = DECODE.get(arch, {}).get(size)
    return None if row is None else row.speedup
