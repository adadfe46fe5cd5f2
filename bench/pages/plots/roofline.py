"""Draw the roofline of bench.kernels: what the machine allows, and where each kernel is.

    python -m bench.roofline RESULTS_FOLDER

reads RESULTS_FOLDER/kernels.json and nothing else, and writes roofline.png and roofline.svg beside
it: multiply-accumulates a second over those that a byte of weights is good for, below the slanted
roofs of what memory delivers and the flat ones of what instructions compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.core.command import on_results
from bench.core.errors import ResultsError
from bench.core.kernels import OURS, Product, Timings, load_cases
from bench.core.measure import Case
from bench.core.results import FP16, KERNELS_FILE, plural
from bench.pages.plots import style
from ternops.encodings import ENCODINGS

_WIDTH, _PANEL = 7.2, 3.5  # inches; wider than other pictures, for the words at the right end
_MEMORY = "DRAM"
#: Levels of memory and their lines; instructions and their names.
_SLANTED = {_MEMORY: "-", "last level": "--", "L2": ":"}
_FLAT = {"dot": "dot", "tile": "tiles"}
_INK, _BAND = "#333333", "#F0F0F0"
_LINE: dict[str, Any] = {"color": _INK, "linewidth": 1.3, "zorder": 2}
_TEXT: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}


def draw(folder: Path) -> list[Path]:
    """Draw folder/kernels.json and return the paths of the pictures.

    Raises ResultsError for results that cannot be drawn, OSError for files that cannot be read or
    written.
    """
    cases = load_cases(folder / KERNELS_FILE)
    try:
        with style.applied():
            return style.save(figure_of(cases), folder, "roofline")
    except ResultsError as error:
        raise ResultsError(f"{folder / KERNELS_FILE}: {error}") from error


def figure_of(cases: Sequence[Case]) -> Figure:
    """The picture of what was timed, in the style that is applied.

    Raises ResultsError if there is no limit or no kernel among it.
    """
    results = Timings(cases)
    if not results.limits:
        raise ResultsError("no limit was measured")
    # The limits of other tiers are others.
    tier = next(iter(results.limits)).tier
    products = results.find(engine=OURS, tier=tier)
    if not products:
        raise ResultsError("no kernel was measured")
    counts = sorted({each.threads for each in products})
    counts = list(dict.fromkeys((counts[0], counts[-1])))
    cpu = " ".join(str(cases[0].metadata.get("cpu_model_name", "an unnamed CPU")).split())
    handles = _legend(products)
    figure = style.sheet(
        _PANEL * len(counts), "Ternary kernels and the limits of the machine",
        (f"{cpu}, {tier}; kernels and the roofs above them measured in one run",), handles,
        columns=len(handles), width=_WIDTH,
    )  # fmt: skip
    panels = figure.subplots(len(counts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    # limit -> bytes or multiply-accumulates a second, the most that was measured anywhere.
    roofs = {
        threads: {
            what: results.limit_rate(limit)
            for what in (*_SLANTED, *_FLAT)
            if (limit := results.fastest(what=what, threads=threads, tier=tier))
        }
        for threads in counts
    }
    _set_scales(panels[0], results, products)
    for axes, threads in zip(panels, counts, strict=True):
        _draw_panel(axes, results, products, threads)
        _draw_ceilings(axes, roofs[threads])
    panels[-1].set_xlabel("multiply-accumulates a byte of weights (log scale)")
    # Only once the axes are laid out is it known how steep the roofs are.
    figure.draw_without_rendering()
    for axes, threads in zip(panels, counts, strict=True):
        _draw_slopes(axes, roofs[threads])
    return figure


def _set_scales(axes: Axes, results: Timings, products: Sequence[Product]) -> None:
    """For all panels: room for every point, and on the left for where the roofs meet."""
    places = [each.macs / each.bytes for each in products]
    rates = [results.rate(each) for each in products]
    rates += [results.limit_rate(each) for each in results.limits if each.what in _FLAT]
    axes.set(xscale="log", yscale="log", xlim=(min(places) / 8, max(places) * 1.6),
             ylim=(min(rates) / 2e9, max(rates) * 4 / 1e9))  # fmt: skip
    axes.xaxis.set_major_locator(LogLocator(base=4))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_panel(axes: Axes, results: Timings, products: Sequence[Product], threads: int) -> None:
    """The points, on a band for each number of tokens."""
    axes.set_title(plural(threads, "thread"), loc="left", weight="bold")
    axes.set_ylabel("GMAC/s (log scale)")
    for tokens in sorted({each.tokens for each in products}):
        places = [each.macs / each.bytes for each in products if each.tokens == tokens]
        left, right = min(places) / 1.13, max(places) * 1.13
        axes.axvspan(left, right, color=_BAND, linewidth=0, zorder=0)
        axes.annotate(
            f"{tokens} token" if tokens == 1 else str(tokens), ((left * right) ** 0.5, 0), (0, 3),
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
        )  # fmt: skip
    for product in reversed(products):
        if product.threads == threads:
            look = _look(product.encoding, product.level == _MEMORY)
            axes.plot(product.macs / product.bytes, results.rate(product) / 1e9, **look)


def _draw_ceilings(axes: Axes, roofs: Mapping[str, float]) -> None:
    """What instructions compute, named at the right end; from where the fastest memory meets it."""
    left, right = axes.get_xlim()
    fastest = max((roofs[what] for what in _SLANTED if what in roofs), default=float("inf"))
    for what, name in _FLAT.items():
        if rate := roofs.get(what):
            axes.plot([max(left, rate / fastest), right], [rate / 1e9] * 2, "-", **_LINE)
            axes.annotate(f"{name}\n{rate / 1e9:.0f} GMAC/s", (right, rate / 1e9), (4, 0),
                          va="center", **_TEXT)  # fmt: skip


def _draw_slopes(axes: Axes, roofs: Mapping[str, float]) -> None:
    """What memory delivers, up to the highest ceiling, each named where it would go on above."""
    left, right = axes.get_xlim()
    bottom, _ = axes.get_ylim()
    highest = max((roofs[what] for what in _FLAT if what in roofs), default=float("inf"))
    (x0, y0), (x1, y1) = axes.transData.transform([(1, 1), (10, 10)])
    steepness = math.degrees(math.atan2(y1 - y0, x1 - x0))
    for what, line in _SLANTED.items():
        if rate := roofs.get(what):
            start, end = max(left, bottom * 1e9 / rate), min(right, highest / rate)
            axes.plot([start, end], [start * rate / 1e9, end * rate / 1e9], line, **_LINE)
            text = axes.annotate(f"{what} {rate / 1e9:.0f} GB/s", (end, end * rate / 1e9), (3, 4),
                                 rotation=steepness, rotation_mode="anchor", **_TEXT)  # fmt: skip
            text.set_in_layout(False)  # or the axes would shrink and the slope change


def _look(encoding: str, from_memory: bool) -> dict[str, Any]:
    """How a point is drawn: filled where the weights come from memory."""
    look = style.points(encoding)
    fill = {"markersize": 7.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    if not from_memory:
        fill = {"markersize": 6.5, "markerfacecolor": "white", "markeredgewidth": 1.5}
    return {**look, **fill, "linestyle": "", "zorder": 3}


def _legend(products: Sequence[Product]) -> list[Artist]:
    """What the marks mean."""
    present = {each.encoding for each in products}
    handles: list[Artist] = [
        Line2D([], [], label=name, **_look(name, True)) for name in ENCODINGS if name in present
    ]
    for words, from_memory in (("weights from DRAM", True), ("from a cache", False)):
        handles.append(Line2D([], [], label=words, **_look(FP16, from_memory)))
    return handles


main = partial(
    on_results, "bench.roofline", "Draw the roofline of bench.kernels.", KERNELS_FILE, draw
)  # fmt: skip
