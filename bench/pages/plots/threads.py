"""Tokens a second against the number of threads, for a few sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bench.core.results import ENGINES, FP16, Results, Row
from bench.pages.plots import style

NEEDS = "engine of this library decoded a size with two thread counts"
_MAX_SIZES = 4
_IDEAL: dict[str, Any] = {
    "color": "#999999", "linewidth": 0.9, "linestyle": (0, (3, 2)), "zorder": 1,
}  # fmt: skip


def draw(results: Results) -> Figure | None:
    """One panel a size, logarithmic both ways, with what perfect scaling would give."""
    curves = {size: found for size in results.sizes if (found := _curves(results, size))}
    if not curves:
        return None
    # At most a few, evenly from the smallest to the largest.
    places = np.linspace(0, len(curves) - 1, min(len(curves), _MAX_SIZES)).round().astype(int)
    sizes = [list(curves)[each] for each in places]
    engines = [each for each in results.engines if any(each in curves[size] for size in sizes)]
    kinds = [row.kind for size in sizes for rows in curves[size].values() for row in rows]
    handles = [
        *(Line2D([], [], label=each, **style.points(each)) for each in engines),
        Line2D([], [], label="ideal scaling", **_IDEAL),
    ]
    some = f" {len(sizes)} of {len(curves)} sizes are shown." if len(sizes) < len(curves) else ""
    columns = min(2, len(sizes))
    height = -(-len(sizes) // columns)
    figure = style.sheet(
        2.3 * height + 0.2, "Decoding: tokens/s by number of threads",
        (f"{style.machine(results)}, batch 1.",
         f"Medians, both axes logarithmic.{some} {style.hollow(kinds)}"),
        handles, columns=6,
    )  # fmt: skip
    panels = figure.subplots(height, columns, sharex=True, squeeze=False)
    for axes, size in zip(panels.flat, sizes, strict=False):
        axes.set_title(size)
        _draw(axes, curves[size])
    for axes in panels.flat[len(sizes) :]:
        axes.set_visible(False)
    figure.align_ylabels(panels[:, 0])
    for axes in panels[-1]:
        axes.set_xlabel("threads")
    for row in panels:
        row[0].set_ylabel("tokens/s")
    return figure


def _curves(results: Results, size: str) -> dict[str, list[Row]]:
    """engine -> its rows by number of threads, where there are two or more."""
    by_threads = {count: style.decoding(results, count) for count in results.threads}
    curves = {}
    for engine in [each for each in results.engines if each in ENGINES]:
        found = [rows[size, engine] for rows in by_threads.values() if (size, engine) in rows]
        if len(found) > 1:
            curves[engine] = found
    return curves


def _draw(axes: Axes, curves: dict[str, list[Row]]) -> None:
    axes.set(xscale="log", yscale="log")
    counts = sorted({row.threads for rows in curves.values() for row in rows})
    for engine, rows in curves.items():
        first, look = rows[0], style.points(engine)
        ends = np.array([first.threads, counts[-1]])
        axes.plot(ends, first.speed * ends / first.threads, **_IDEAL)
        speeds = [row.speed for row in rows]
        axes.plot([row.threads for row in rows], speeds, linewidth=1.5, color=look["color"])
        for row in rows:
            face = style.points(engine, row.kind)
            axes.plot(row.threads, row.speed, linestyle="", **face, zorder=3 + (engine != FP16))
    axes.set_xticks(counts, map(str, counts))
    axes.xaxis.set_minor_locator(NullLocator())
    style.logarithmic(axes.yaxis)
    axes.margins(x=0.08, y=0.08)
