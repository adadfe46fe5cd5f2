"""How generation grows with threads: the profiles against bitnet.cpp's published figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.published.later import THREADS
from ternops.cost import load, predict
from ternops.cost.layouts import SIZES
from ternops.cost.workload import workload

_SIZE = "2B4T"
#: bitnet.cpp's I2_S has two bits a weight, as this encoding has.
ENCODING = "two_bit"
#: Generation is saturated where this share of its best speed is reached.
SATURATED = 0.95


@dataclass(frozen=True)
class Step:
    """Published and predicted tokens/s with so many threads.

    unknown: kernels that the profile has no rate of; if there are any, the prediction is at most.
    """

    threads: int
    published: float
    predicted: float
    unknown: tuple[str, ...]

    @property
    def error(self) -> float:
        """Relative, of the speed."""
        return self.predicted / self.published - 1


def saturation(speeds: Mapping[int, float]) -> int:
    """The number of the first thread count that reaches SATURATED of the best, from 0."""
    best = max(speeds.values())
    return next(n for n, speed in enumerate(speeds.values()) if speed >= SATURATED * best)


def steps(profile: str) -> list[Step]:
    """The published thread counts of a machine."""
    hardware = load(profile)
    found = []
    for threads, speed in THREADS[profile].generation.items():
        # A virtual machine's or a hybrid CPU's profile may have fewer cores than threads ran.
        prediction = predict(SIZES[_SIZE], hardware, ENCODING, min(threads, hardware.threads))
        found.append(Step(threads, speed, prediction.tokens_per_second, prediction.unknown))
    return found


def token_bytes() -> int:
    """Bytes that a token reads, without the few of keys and values."""
    return workload(SIZES[_SIZE], ENCODING, "decode", 1).bytes


def off_by(found: list[Step]) -> int:
    """Steps between the published and the predicted saturation."""
    published, predicted = (
        saturation({each.threads: getattr(each, name) for each in found})
        for name in ("published", "predicted")
    )
    return abs(published - predicted)
