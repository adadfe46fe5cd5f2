"""README.md beside arm.json: the tables that a person reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.arm import predicted
from bench.arm.stored import Count, Cycles, Part, Speed
from bench.pages import page
from bench.published import paper
from ternops.cost.workload import FP16

_PAGE, _TEMPLATE = "README.md", "arm.md.jinja"
_LOOPS = "loops.csv"


def write(folder: Path, parts: dict[str, Part]) -> Path:
    """Write the page of the parts that there are, all or nothing."""
    values = dict(
        versions={name: parts[name].versions for name in parts},
        left_out=[line for part in parts.values() for line in part.left_out],
        executed=_executed(_rows(parts, "executed")), mca=_mca(_rows(parts, "mca")),
        machines=_machines(_rows(parts, "predicted")), context=predicted.CONTEXT,
        paper=paper, loops=_LOOPS if (folder / _LOOPS).exists() else "",
    )  # fmt: skip
    return page.write(folder / _PAGE, _TEMPLATE, values)


def _rows(parts: dict[str, Part], name: str) -> Sequence[Any]:
    return parts[name].rows if name in parts else ()


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _executed(rows: Sequence[Count]) -> dict[str, Any]:
    """cpus: name -> tier. kernels: a line each, with the counts by CPU."""
    lines: dict[tuple[str, int, int, int], dict[str, Count]] = {}
    for row in rows:
        lines.setdefault((row.kernel, row.tokens, row.rows, row.columns), {})[row.cpu] = row
    return {
        "cpus": {row.cpu: row.tier for row in rows},
        "kernels": [
            {"name": name, "tokens": tokens, "shape": f"{height} x {width}", "counts": counts}
            for (name, tokens, height, width), counts in lines.items()
        ],
    }


def _mca(rows: Sequence[Cycles]) -> list[dict[str, Any]]:
    """Of each core the loops, the fewest cycles a weight first."""
    return [
        {
            "core": core,
            "model": next(row.model for row in rows if row.core == core),
            "loops": sorted((row for row in rows if row.core == core), key=lambda row: row.each),
        }
        for core in _unique(row.core for row in rows)
    ]


def _machines(rows: Sequence[Speed]) -> list[dict[str, Any]]:
    """Of each machine its sizes, with the ternary speeds beside float16's where it is known."""
    machines = []
    for profile in _unique(row.profile for row in rows):
        own = [row for row in rows if row.profile == profile]
        encodings = _unique(row.encoding for row in own)
        machines.append({
            "name": own[0].machine, "threads": own[0].threads,
            "is_papers": profile == predicted.PAPERS,
            "encodings": [each for each in encodings if each != FP16],
            "sizes": [_size(size, own, encodings) for size in _unique(row.size for row in own)],
        })  # fmt: skip
    return machines


def _size(size: str, rows: Sequence[Speed], encodings: list[str]) -> dict[str, Any]:
    found = {row.encoding: row for row in rows if row.size == size}
    dense = found.get(FP16)
    return {
        "size": size, "dense": dense,
        "speeds": {name: found.get(name) for name in encodings},
        "speedups": {
            name: row.tokens_per_second / dense.tokens_per_second
            for name, row in found.items() if dense
        },
        "kinds": ", ".join(_unique(row.kind for row in found.values())),
        "published": paper.DECODE["arm"].get(size),
    }  # fmt: skip
