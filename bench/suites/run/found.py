"""What of a model a cache that others share holds when a token begins: its weights are read.

Caches that resist streams take bytes in by and by: on Sapphire Rapids 148 MB that were read over
and over came at the memory's rate at first, at 20 GB/s after 10 passes, at 23 after 20 and at 26
after 40. How far that gets depends on the pace of the passes and on neighbours, by the second, and
no reading of other bytes a minute before can tell. So the weights themselves are read, behind each
turn of decoding; and in turn with that, by the same loop, bytes that no cache holds and bytes that
the cache holds whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from bench.core.measure import Case, nothing
from bench.core.results import Probe
from ternops.cost.measured import PROBE, SHARED, has_own_caches
from ternops.cost.mountain import MIN_FASTER
from ternops.cost.probes import READS, RECORD, Reader
from ternops.cpu_caches import cpu_cache_bytes, last_level_bytes
from ternops.decoder.weights import Weights, operand_of
from ternops.memory import CACHE_LINE, aligned_empty
from ternops.team import MAX_THREADS, TEAM

_WHAT, _THREADS = "ternops_found", "ternops_threads"
_FAR, _NEAR = "memory", SHARED
_BEYOND, _TIMES = 4, 8  # second-level caches that are read so often from the one behind


def held_cases(
    weights: Mapping[str, Weights], reader: Reader, threads: int
) -> dict[str, list[Case]]:
    """By engine, of those that the shared cache may hold a part of: reading its weights once.

    Last what is beside all of them: reading what no cache holds, and what the shared one holds
    whole. Nothing where there is no such cache.
    """
    most = last_level_bytes() if has_own_caches() else 0
    held = {
        engine: [_own_case(engine, each, threads)]
        for engine, each in weights.items()
        if each.bytes_per_token < most
    }
    return {**held, "": _beside(reader, threads)} if held else {}


def spans(weights: Weights) -> list[tuple[int, int]]:
    """Where the matrices that a token reads lie: addresses and sizes, neighbours as one."""
    matrices = [each for layer in weights.layers for each in layer.linear.values()]
    found: list[tuple[int, int]] = []
    for operand in sorted(map(operand_of, (*matrices, weights.head)), key=lambda it: it.address):
        if found and 0 <= operand.address - sum(found[-1]) < CACHE_LINE:
            first = found.pop()[0]
            found.append((first, operand.address + operand.nbytes - first))
        elif not found or operand.address >= sum(found[-1]):  # layers may be the same ones again
            found.append((operand.address, operand.nbytes))
    return found


def _own_case(engine: str, weights: Weights, threads: int) -> Case:
    where = spans(weights)
    sink = aligned_empty(MAX_THREADS * CACHE_LINE, np.uint8)
    records = np.zeros(len(where), RECORD)
    for i, (address, size) in enumerate(where):
        records[i] = (address, size, PROBE.ahead, sink.ctypes.data, 1)

    def run(kept: object = (weights, sink)) -> None:
        for i in range(len(records)):
            TEAM.run(READS[PROBE.streams], records[i : i + 1], threads)

    return _case(engine, run, threads, sum(size for _, size in where))


def _beside(reader: Reader, threads: int) -> list[Case]:
    size = min(_BEYOND * cpu_cache_bytes()[2] * threads, reader.size)
    near = partial(reader.run, PROBE, threads, _TIMES, 0, size)
    return [
        _case(_FAR, partial(reader.run, PROBE, threads), threads, reader.size),
        _case(_NEAR, near, threads, size, _TIMES),
    ]


def _case(what: str, run: Callable[[], object], threads: int, size: int, times: int = 1) -> Case:
    about = {_WHAT: what, _THREADS: threads, "ternops_bytes": size, "ternops_probe": str(PROBE)}
    name = f"read {what}, {threads} thread(s)"
    return Case(name, run, times, metadata=about, before=run if times > 1 else nothing)


def found_share(probes: Iterable[Probe], engine: str, threads: int) -> float | None:
    """Of the weights of an engine; None where nobody has read them, or the cache is none."""
    seconds = {
        each.metadata[_WHAT]: np.asarray(each.seconds) / each.metadata["ternops_bytes"]
        for each in probes
        if _WHAT in each.metadata and each.metadata[_THREADS] == threads
    }
    if not seconds.keys() >= {engine, _FAR, _NEAR}:
        return None
    far, near = (np.median(seconds[what]) for what in (_FAR, _NEAR))
    if far < MIN_FASTER * near:
        return None
    return float(np.clip((far - np.median(seconds[engine])) / (far - near), 0, 1))
