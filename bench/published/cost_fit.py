"""The cost model against published figures: few parameters fitted on few rows, the rest predicted.

Speeds: bandwidth and overhead a layer on the fp16 column, and one rate of the ternary kernel on its
7B row. Energies: power on the fp16 rows, with the published times. No other row is read before it
is predicted. By threads: the profiles as they are, with nothing fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from bench.published import paper
from ternops.cost import Hardware, load, predict
from ternops.cost.hardware import Curve, Kernel, Level
from ternops.cost.layouts import SIZES
from ternops.cost.workload import FP16, Workload, workload

#: Architecture -> profile, and the look-up encoding that bitnet.cpp used there.
MACHINES = {"x86": ("i7-13700h", "tl2"), "arm": ("m2-ultra", "tl1")}
#: The ternary row that the kernel's rate is fitted on.
FITTED = "7B"
#: Positions before the token: the middle of generating 128.
CONTEXT = 64
#: Weights that a core looks up in the time that it takes to prepare one activation's part of a
#: table, which bitnet.cpp does on one thread while the others wait. Counted, not fitted: a weight
#: is half of two look-ups, a merge and an addition; an activation half of a table's 16 sums, each
#: added, split into bytes, transposed in three steps and stored, and 4 operations to quantise it.
LOOKED_UP = 30
#: The size that bitnet.cpp's figures by threads are of; its I2_S has two bits a weight, too.
SCALED, SCALED_ENCODING = "2B4T", "two_bit"
#: Generation is saturated where this share of its best speed is reached.
SATURATED = 0.95


@dataclass(frozen=True)
class Fit:
    """bandwidth: bytes/s. overhead: seconds a layer. rate: weights/s of all cores, 0 if none."""

    bandwidth: float
    overhead: float
    rate: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """A published speed in tokens/s and what the model makes of it.

    fitted: whether it was read for that. unknown: kernels that the profile has no rate of; if there
    are any, the prediction is at most.
    """

    published: float
    predicted: float
    size: str = ""
    fitted: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Relative, of the speed."""
        return self.predicted / self.published - 1


def fit_fp16(column: Mapping[str, float]) -> Fit:
    """From size -> tokens/s with fp16 weights: least squares of the relative errors of the time."""
    works = {size: _work(size, FP16) for size in column}
    rows = np.array([[works[size].bytes, SIZES[size].layers] for size in column], float)
    weights = np.array(list(column.values()))
    (a_byte, a_layer), *_ = np.linalg.lstsq(rows * weights[:, None], np.ones(len(rows)), rcond=None)
    return Fit(1 / a_byte, max(0.0, a_layer))


def fit_rate(fp16: Fit, arch: str, speed: float) -> Fit:
    """With the kernel's rate, from the ternary speed at FITTED, by bisection."""
    low, high = 1e9, 1e14
    for _ in range(100):
        rate = math.sqrt(low * high)
        found = replace(fp16, rate=rate)
        if _speed(found, arch, FITTED) < speed:
            low = rate
        else:
            high = rate
    return replace(fp16, rate=math.sqrt(low * high))


def fit(arch: str, with_rate: bool = True) -> Fit:
    """Of an architecture's fp16 column and, with_rate, its ternary row FITTED; of nothing else."""
    table = paper.DECODE[arch]
    found = fit_fp16({size: row.fp16 for size, row in table.items() if row.fp16})
    return fit_rate(found, arch, table[FITTED].ternary) if with_rate else found


def speeds(arch: str, with_rate: bool = True) -> tuple[Fit, list[Comparison], list[Comparison]]:
    """The fit of an architecture's column, its fp16 rows and its ternary rows.

    with_rate: whether the 7B row was read; without it the memory alone is the limit.
    """
    table, found = paper.DECODE[arch], fit(arch, with_rate)
    dense = [
        Comparison(row.fp16, 1 / seconds(found, arch, size, FP16), size, True)
        for size, row in table.items()
        if row.fp16
    ]
    ternary = [
        Comparison(row.ternary, _speed(found, arch, size), size, with_rate and size == FITTED)
        for size, row in table.items()
    ]
    return found, dense, ternary


def errors(rows: list[Comparison]) -> tuple[float, float]:
    """Median and largest of the absolute relative errors of what was not fitted."""
    found = [abs(row.error) for row in rows if not row.fitted]
    return median(found), max(found)


def _work(size: str, kind: str) -> Workload:
    return workload(SIZES[size], kind, "decode", CONTEXT)


def token_bytes(size: str, kind: str) -> int:
    """Bytes that a token reads."""
    return _work(size, kind).bytes


def seconds(fit: Fit, arch: str, size: str, kind: str) -> float:
    """Of a token with fp16 weights, or of the architecture's ternary encoding."""
    if kind == FP16:
        return token_bytes(size, kind) / fit.bandwidth + SIZES[size].layers * fit.overhead
    return 1 / _speed(fit, arch, size)


def fitted_hardware(fit: Fit, arch: str) -> Hardware:
    """The machine as the fit sees it: memory, a kernel, and an overhead as barriers."""
    name, encoding = MACHINES[arch]
    machine = load(name)
    barriers = sum(part.barriers for part in _work(FITTED, encoding).parts)
    cycles = machine.clock(machine.threads) * machine.threads
    one = Curve((1,), (fit.rate / cycles,))
    kernel = Kernel(one, one, Curve((1,), (fit.rate / cycles / LOOKED_UP,)))
    return replace(
        machine, levels=(Level("DRAM", Curve((1,), (fit.bandwidth,))),), memory=math.inf,
        barrier=Curve((1,), (fit.overhead * SIZES[FITTED].layers / barriers,)),
        kernels={encoding: kernel} if fit.rate else {},
    )  # fmt: skip


def _speed(fit: Fit, arch: str, size: str) -> float:
    hardware = fitted_hardware(fit, arch)
    found = predict(SIZES[size], hardware, MACHINES[arch][1], context=CONTEXT)
    return found.tokens_per_second


@dataclass(frozen=True)
class Saving:
    """Published and predicted joules a token, and watts that the published ones imply.

    fp16 is None where the paper has none. saved: in percent, NaN without fp16.
    """

    size: str
    fp16: float | None
    ternary: float
    predicted_fp16: float
    predicted_ternary: float
    watts_fp16: float
    watts_ternary: float

    @property
    def saved(self) -> float:
        return 100 * (1 - self.ternary / self.fp16) if self.fp16 else math.nan

    @property
    def predicted(self) -> float:
        return 100 * (1 - self.predicted_ternary / self.predicted_fp16) if self.fp16 else math.nan


def fit_power(arch: str) -> float:
    """Watts of the machine at work but for its memory's bytes: the mean of the fp16 rows."""
    return float(np.mean([
        row.fp16 * speed - memory_joules(arch, size, FP16) * speed
        for size, row in paper.ENERGY[arch].items()
        if row.fp16 and (speed := paper.DECODE[arch][size].fp16)
    ]))  # fmt: skip


def savings(arch: str) -> tuple[float, list[Saving]]:
    """The fitted watts, and every row that has an energy, from the published times."""
    watts = fit_power(arch)
    found = []
    for size, row in paper.ENERGY[arch].items():
        speed, encoding = paper.DECODE[arch][size], MACHINES[arch][1]
        fp16 = speed.fp16 or math.nan
        found.append(Saving(
            size, row.fp16, row.ternary,
            predicted_fp16=watts / fp16 + memory_joules(arch, size, FP16),
            predicted_ternary=watts / speed.ternary + memory_joules(arch, size, encoding),
            watts_fp16=(row.fp16 or math.nan) * fp16, watts_ternary=row.ternary * speed.ternary,
        ))  # fmt: skip
    return watts, found


def memory_joules(arch: str, size: str, kind: str) -> float:
    """Of a token's bytes from DRAM, by the profile's energy a byte."""
    return token_bytes(size, kind) * load(MACHINES[arch][0]).levels[-1].energy


def saturation(speeds: Mapping[int, float]) -> int:
    """The number of the first thread count that reaches SATURATED of the best, from 0."""
    best = max(speeds.values())
    return next(n for n, speed in enumerate(speeds.values()) if speed >= SATURATED * best)


def steps(profile: str) -> dict[int, Comparison]:
    """The published thread counts of a machine."""
    hardware, found = load(profile), {}
    for threads, speed in paper.THREADS[profile].generation.items():
        # A virtual machine's or a hybrid CPU's profile may have fewer cores than threads ran.
        guess = predict(SIZES[SCALED], hardware, SCALED_ENCODING, min(threads, hardware.threads))
        found[threads] = Comparison(speed, guess.tokens_per_second, unknown=guess.unknown)
    return found


def threads_bytes() -> int:
    """Bytes that a token reads, without the few of keys and values."""
    return workload(SIZES[SCALED], SCALED_ENCODING, "decode", 1).bytes


def off_by(found: Mapping[int, Comparison]) -> int:
    """Steps between the published and the predicted saturation."""
    published = saturation({threads: each.published for threads, each in found.items()})
    return abs(published - saturation({threads: each.predicted for threads, each in found.items()}))
