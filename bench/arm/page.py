"""README.md beside arm.json: the tables that a person reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.arm import predicted
from bench.arm.stored import Count, Cycles, Part, Speed
from bench.core.table import Cell, Table, number, table, text
from bench.pages import page
from bench.published import paper
from ternops.cost.workload import FP16

_LOOPS = "loops.csv"


def write(folder: Path, parts: dict[str, Part]) -> Path:
    """Write the page of the parts that there are, all or nothing."""
    rows: dict[str, Sequence[Any]] = {name: part.rows for name, part in parts.items()}
    speeds: Sequence[Speed] = rows.get("predicted", ())
    values = dict(
        made={
            name: ", ".join(f"{what} {version}" for what, version in part.versions.items())
            for name, part in parts.items()
        },
        left_out=[line for part in parts.values() for line in part.left_out],
        executed=_executed(rows.get("executed", ())), mca=_mca(rows.get("mca", ())),
        machines=[
            _machine([row for row in speeds if row.profile == profile])
            for profile in _unique(row.profile for row in speeds)
        ],
        context=predicted.CONTEXT, paper=paper,
        loops=_LOOPS if (folder / _LOOPS).exists() else "",
    )  # fmt: skip
    return page.write(folder / "README.md", "arm.md.jinja", values)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _executed(rows: Sequence[Count]) -> Table:
    """A line for each kernel, with the counts by CPU."""
    lines: dict[tuple[str, int, int, int], dict[str, float]] = {}
    for row in rows:
        key = row.kernel, row.tokens, row.rows, row.columns
        lines.setdefault(key, {})[row.cpu] = row.each
    columns: dict[str, Callable[[Any], Cell]] = {
        "kernel": lambda key: text(key[0]),
        "tokens": lambda key: number(key[1], "{}"),
        "weights": lambda key: Cell(f"{key[2]} x {key[3]}", key[2] * key[3]),
    }
    for cpu, tier in {row.cpu: row.tier for row in rows}.items():
        each = partial(lambda cpu, key: number(lines[key].get(cpu), "{:.3f}"), cpu)
        columns[f"{cpu} ({tier})"] = each
    return table("executed", "", columns, list(lines), whole=True)


def _mca(rows: Sequence[Cycles]) -> Table:
    """Of each core the loops, the fewest cycles a weight first."""
    lines = []
    for core in _unique(row.core for row in rows):
        loops = sorted((row for row in rows if row.core == core), key=lambda row: row.each)
        cells = (
            f"{it.kernel.removeprefix('gemv_')} {it.each:.3f} ({it.units / it.weights:.3f})"
            for it in loops
        )
        lines.append([text(each) for each in (core, loops[0].model, *cells)])
    places = [f"{i}." for i in range(1, len(lines[0]) - 1)] if lines else []
    return Table("mca", "", ["core", "LLVM's model", *places], lines)


def _machine(rows: Sequence[Speed]) -> dict[str, Any]:
    """The sizes of a machine, with the ternary speeds beside fp16's where it is known."""
    is_papers = rows[0].profile == predicted.PAPERS
    encodings = [each for each in _unique(row.encoding for row in rows) if each != FP16]
    columns = ["size", "kind", "fp16"]
    for encoding in encodings:
        columns += [encoding, "speed-up"]
    if is_papers:
        columns += ["published: fp16", "ternary", "speed-up"]
    lines = []
    for size in _unique(row.size for row in rows):
        found = {row.encoding: row for row in rows if row.size == size}
        dense = found.get(FP16)
        kinds = ", ".join(_unique(row.kind for row in found.values()))
        line = [text(size), text(kinds), _speed(dense)]
        for row in map(found.get, encodings):
            ratio = row.tokens_per_second / dense.tokens_per_second if row and dense else None
            line += [_speed(row), number(ratio, "{:.2f}x")]
        if is_papers and (published := paper.DECODE["arm"].get(size)):
            line += [number(each, "{}") for each in published]
            line.append(number(published.speedup, "{:.2f}x"))
        lines.append(line)
    return {
        "name": rows[0].machine, "threads": rows[0].threads, "is_papers": is_papers,
        "table": Table(rows[0].profile, "", columns, lines),
    }  # fmt: skip


def _speed(row: Speed | None) -> Cell:
    if row is None:
        return text(None)
    return number(row.tokens_per_second, "<= {:.4g}" if row.at_most else "{:.4g}")
