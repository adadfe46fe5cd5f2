"""Joules a token by size, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.core.results import FP16, MEASURED, MODELLED, Results, Row
from bench.pages.plots import style
from bench.published import paper

NEEDS = "row with joules a token"
_PAPER: dict[str, Any] = {
    "linestyle": "", "marker": "*", "markersize": 10, "markeredgecolor": style.INK,
    "markeredgewidth": 0.7,
}  # fmt: skip
#: Of the paper: what it is called, and the colour of its star.
_STARS = {"fp16": ("llama.cpp fp16", "white"), "ternary": ("bitnet.cpp", style.PAPER)}


def draw(results: Results) -> Figure | None:
    """Points by size on a logarithmic axis: fp16, encodings, and the paper's."""
    encodings, left_out = style.encodings(results)
    shown = [FP16, *encodings]
    rows = {
        (size, engine): row
        for (size, engine), row in style.decoding(results).items()
        if engine in shown and row.joules > 0
    }
    if not rows:
        return None
    sizes = [size for size in results.sizes if any(key[0] == size for key in rows)]
    published = {
        (size, name): value
        for size in sizes
        if (row := paper.ENERGY.get(results.arch, {}).get(size))
        for name, value in row._asdict().items()
        if value is not None
    }
    best = encodings[0] if encodings else ""
    savings = {
        size: 1 - rows[size, best].joules / rows[size, FP16].joules
        for size in sizes
        if (size, best) in rows and (size, FP16) in rows
    }
    cpu = paper.CPUS.get(results.arch)
    stars = f"Stars: the paper's ({paper.SOURCE}), on {cpu}." * bool(published)
    figure = style.sheet(
        3.0, "Decoding: energy a token",
        (style.setting(results), f"Percentages: what {best} saves of fp16's." * bool(savings),
         stars, left_out),
        _legend(rows, shown, {name for _, name in published}), columns=4,
    )  # fmt: skip
    axes = figure.subplots()
    labels = [f"{size}\n{savings[size]:.0%}" if size in savings else size for size in sizes]
    middles = dict(zip(sizes, style.label_sizes(axes, labels), strict=True))
    _draw(axes, rows, shown, middles)
    for (size, name), value in published.items():
        axes.plot(middles[size] + 0.22, value, **_PAPER, markerfacecolor=_STARS[name][1])
    return figure


def _legend(
    rows: Mapping[tuple[str, str], Row], shown: Sequence[str], published: set[str]
) -> list[Artist]:
    present = {engine for _, engine in rows}
    handles = style.marks(engine for engine in shown if engine in present)
    for kind in (MEASURED, MODELLED):
        if kind in {row.energy for row in rows.values()}:
            face = style.GREY if kind == MEASURED else "white"
            look = {**style.points("", kind), "color": style.GREY, "marker": "o", "linestyle": "",
                    "markeredgecolor": style.GREY, "markerfacecolor": face}  # fmt: skip
            handles.append(Line2D([], [], label=f"{kind} energy", **look))
    for name, (words, face) in _STARS.items():
        if name in published:
            star = Line2D([], [], label=f"{words} (paper)", **_PAPER, markerfacecolor=face)
            handles.append(star)
    return handles


def _draw(
    axes: Axes, rows: Mapping[tuple[str, str], Row], shown: Sequence[str],
    middles: Mapping[str, float],
) -> None:  # fmt: skip
    for engine in shown:
        found = [(x, rows[size, engine]) for size, x in middles.items() if (size, engine) in rows]
        axes.plot(
            [x for x, _ in found], [row.joules for _, row in found], linewidth=1,
            color=style.colour(engine), alpha=0.5,
        )  # fmt: skip
        for x, row in found:
            axes.plot(x, row.joules, linestyle="", **style.points(engine, row.energy))
    axes.set_yscale("log")
    style.logarithmic(axes.yaxis)
    axes.set_ylabel("joules a token (log scale)")
