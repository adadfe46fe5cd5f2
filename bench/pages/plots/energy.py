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
_NAMES = {"fp16": "llama.cpp fp16", "ternary": "bitnet.cpp"}
_FACES = {"fp16": "white", "ternary": style.PAPER}


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
    arch = str(results.about.get("arch"))
    published = {size: paper.ENERGY.get(arch, {}).get(size) for size in sizes}
    threads = style.plural(results.threads[-1])
    best = encodings[0] if encodings else ""
    savings = _savings(rows, sizes, best)
    saved = f"Percentages: what {best} saves of fp16's." if savings else ""
    figure = style.sheet(
        3.0, "Decoding: energy a token",
        (f"{style.machine(results)}, {threads}, batch 1.", saved,
         _source(published, arch), left_out),
        _legend(rows, shown, published), columns=4,
    )  # fmt: skip
    axes = figure.subplots()
    middles = style.label_sizes(
        axes, [f"{size}\n{savings[size]:.0%}" if size in savings else size for size in sizes]
    )
    _draw(axes, rows, shown, dict(zip(sizes, middles, strict=True)))
    for position, size in zip(middles, sizes, strict=True):
        if energy := published[size]:
            for name, value in energy._asdict().items():
                if value is not None:
                    axes.plot(position + 0.22, value, **_PAPER, markerfacecolor=_FACES[name])
    return figure


def _source(published: Mapping[str, paper.Energy | None], arch: str) -> str:
    """Where the stars are from."""
    return (
        f"Stars: the paper's ({paper.SOURCE}), on {paper.CPUS[arch]}."
        if any(published.values())
        else ""
    )


def _savings(
    rows: Mapping[tuple[str, str], Row], sizes: Sequence[str], engine: str
) -> dict[str, float]:
    """size -> the part of fp16's joules that an engine does not take."""
    return {
        size: 1 - rows[size, engine].joules / rows[size, FP16].joules
        for size in sizes
        if (size, engine) in rows and (size, FP16) in rows
    }


def _legend(
    rows: Mapping[tuple[str, str], Row], shown: Sequence[str],
    published: Mapping[str, paper.Energy | None],
) -> list[Artist]:  # fmt: skip
    kinds = {row.energy for row in rows.values()}
    handles: list[Artist] = []
    for engine in shown:
        if any(key[1] == engine for key in rows):
            handles.append(Line2D([], [], linestyle="", label=engine, **style.points(engine)))
    for kind in (MEASURED, MODELLED):
        if kind in kinds:
            look = {**style.points("", kind), "color": style.GREY, "marker": "o"}
            face = style.GREY if kind == MEASURED else "white"
            look |= {"markeredgecolor": style.GREY, "markerfacecolor": face, "linestyle": ""}
            handles.append(Line2D([], [], label=f"{kind} energy", **look))
    for name in _NAMES:
        if any(each and getattr(each, name) is not None for each in published.values()):
            label = f"{_NAMES[name]} (paper)"
            handles.append(Line2D([], [], label=label, **_PAPER, markerfacecolor=_FACES[name]))
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
