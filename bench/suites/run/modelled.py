"""Rows and joules that are not measured, from the cost model.

The paper's table for an architecture that this machine is not: fp16 and ternary decoding on the
paper's machine, as `bench.published.cost_fit` fits it, every row "modelled". And the joules of rows
where no counter can be read.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bench.core.errors import ResultsError
from bench.core.results import FP16, MODELLED, Results, Row
from bench.published import cost_fit, paper
from ternops.cost import load
from ternops.cost.energy import joules_of
from ternops.cost.layouts import SIZES
from ternops.cost.workload import weight_bytes

#: The middle of as many tokens is the context that is modelled.
TEST = f"tg{2 * cost_fit.CONTEXT}"


def results_for(arch: str, about: dict[str, object], sizes: list[str]) -> Results:
    """Rows of the sizes that the paper has, fp16 where it fits the machine's memory.

    Raises ResultsError if it has none of them.
    """
    known = paper.DECODE[arch]
    if not known.keys() & set(sizes):
        raise ResultsError(f"sizes={sizes!r}: expected some of {', '.join(known)}")
    name, encoding = cost_fit.MACHINES[arch]
    machine = load(name)
    fit = cost_fit.fit(arch)
    watts = cost_fit.fit_power(arch)
    results = Results({
        **about, "arch": arch, "cpu": machine.name, "tier": machine.tiers[-1],
        "memory": int(machine.memory), "left_out": [],
    })  # fmt: skip
    for size in sizes:
        if size not in known:
            results.about["left_out"].append(f"{size}: not in the paper's table")
            continue
        for engine in (FP16, encoding):
            needed = weight_bytes(SIZES[size], engine)
            if needed > machine.memory:
                results.about["left_out"].append(
                    f"{size} {engine}: needs {needed / 1e9:.1f} GB, "
                    f"{machine.name} has {machine.memory / 1e9:.0f}"
                )
                continue
            seconds = cost_fit.seconds(fit, arch, size, engine)
            total = cost_fit.token_bytes(size, engine)
            joules = watts * seconds + cost_fit.memory_joules(arch, size, engine)
            results.rows.append(Row(
                size, engine, TEST, machine.threads, MODELLED, (seconds,), total,
                fit.bandwidth / total, "read bandwidth", joules,
                "" if math.isnan(joules) else MODELLED, f"the cost model, {machine.name}",
            ))  # fmt: skip
    return results


#: The profile whose watts and joules a byte are taken.
PROFILE = "generic"


def with_joules(row: Row) -> Row:
    """The row, of generating tokens with the joules that it would take on a machine as PROFILE.

    Measured joules stay.
    """
    if not row.is_decode or not math.isnan(row.joules):
        return row
    joules = joules_of(1 / row.speed, row.bytes_per_token, load(PROFILE), row.threads)
    return replace(row, joules=joules, energy=MODELLED)
