"""Reading memory in every way that may be the fastest, beside what memory is the limit of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.core.measure import Case
from ternops.cost.probes import PROBES, Probe, Reader


def probe_cases(what: str, reader: Reader, threads: int, times: int = 1) -> list[Case]:
    """A case for each way to read the buffer; `what` it is the limit of goes into the names."""

    def case(probe: Probe) -> Case:
        return Case(
            f"read {reader.size >> 20} MiB for {what}, {probe}, {threads} thread(s)",
            lambda: reader.run(probe, threads, times),
            times,
            metadata={
                "ternops_threads": threads, "ternops_bytes": reader.size,
                "ternops_probe": str(probe),
            },
        )  # fmt: skip

    return [case(probe) for probe in PROBES]


def bandwidth(probes: Sequence[Case], beside: Sequence[float]) -> float:
    """Bytes a second of the fastest probe, while the values `beside` were taken in turn with it.

    Where memory is fast for some seconds and throttled after them, as clouds do it, the median of
    the one may come from other rounds than the median of the other: their quotients are taken round
    by round, so that the median of `beside` over this has the median share of the limit.
    """
    fastest = max(probes, key=lambda case: case.metadata["ternops_bytes"] / case.median)
    values = np.asarray(beside)
    read = fastest.metadata["ternops_bytes"] / np.asarray(fastest.values)
    return float(1 / (np.median(values) * np.median(1 / (values * read))))
