"""How generation grows with threads: the profiles against bitnet.cpp's published figures."""

from __future__ import annotations

from collections.abc import Mapping

from bench.published.cost_fit import Comparison
from bench.published.paper import THREADS
from ternops.cost import load, predict
from ternops.cost.layouts import SIZES
from ternops.cost.workload import workload

_LAYOUT = SIZES["2B4T"]
#: bitnet.cpp's I2_S has two bits a weight, as this encoding has.
ENCODING = "two_bit"
#: Generation is saturated where this share of its best speed is reached.
SATURATED = 0.95


def saturation(speeds: Mapping[int, float]) -> int:
    """The number of the first thread count that reaches SATURATED of the best, from 0."""
    best = max(speeds.values())
    return next(n for n, speed in enumerate(speeds.values()) if speed >= SATURATED * best)


def steps(profile: str) -> dict[int, Comparison]:
    """The published thread counts of a machine."""
    hardware, found = load(profile), {}
    for threads, speed in THREADS[profile].generation.items():
        # A virtual machine's or a hybrid CPU's profile may have fewer cores than threads ran.
        guess = predict(_LAYOUT, hardware, ENCODING, min(threads, hardware.threads))
        found[threads] = Comparison(speed, guess.tokens_per_second, unknown=guess.unknown)
    return found


def token_bytes() -> int:
    """Bytes that a token reads, without the few of keys and values."""
    return workload(_LAYOUT, ENCODING, "decode", 1).bytes


def off_by(found: Mapping[int, Comparison]) -> int:
    """Steps between the published and the predicted saturation."""
    published = saturation({threads: each.published for threads, each in found.items()})
    return abs(published - saturation({threads: each.predicted for threads, each in found.items()}))
