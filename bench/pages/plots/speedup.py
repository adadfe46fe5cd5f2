"""How many times faster than fp16 each size decodes, beside the paper's figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.core.measure import Spread
from bench.core.results import FP16, Results
from bench.pages.plots import style
from bench.published import paper

NEEDS = "size with rows of fp16 and of an encoding at all threads"
_HATCHED = " Hatched: the bar's or the fp16 row's kind."
_GROUP = 0.88  # width of all bars of a size, as a part of the distance between sizes
_MAX_BAR = 0.28  # of one bar
_LIMIT: dict[str, Any] = {"color": style.INK, "linewidth": 1.6}


@dataclass(frozen=True)
class Bar:
    """A speed-up with its quartiles, and what the bytes allow (0 if that is unknown)."""

    ratio: Spread
    allowed: float
    kinds: tuple[str, ...]
    colour: str


def draw(results: Results) -> Figure | None:
    """Bars by size: as many encodings as there is room for, and the paper's figure."""
    shown, left_out = style.encodings(results)
    bars = _bars(results, shown)
    if not bars:
        return None
    for size in results.sizes:
        if value := paper.speedup(results.arch, size):
            bar = Bar(Spread(value, value, value), 0.0, (), style.PAPER)
            bars.setdefault(size, []).append(bar)
    is_hatched = style.hatched(kind for each in bars.values() for bar in each for kind in bar.kinds)
    figure = style.sheet(
        3.1, "Decoding: how many times faster than fp16 weights",
        (style.setting(results),
         f"Medians and quartiles of ratios.{_HATCHED if is_hatched else ''}", left_out),
        _legend(bars, shown, results.arch), columns=2,
    )  # fmt: skip
    axes = figure.subplots()
    axes.set_ylabel("times faster than fp16")
    sizes = [size for size in results.sizes if size in bars]
    _draw(figure, axes, style.label_sizes(axes, sizes), [bars[size] for size in sizes])
    return figure


def _bars(results: Results, shown: Sequence[str]) -> dict[str, list[Bar]]:
    """size -> a bar for each encoding that has an fp16 row beside it."""
    rows, bars = style.decoding(results), dict[str, list[Bar]]()
    for size, encoding in itertools.product(results.sizes, shown):
        row, base = rows.get((size, encoding)), rows.get((size, FP16))
        if row and base and row.test == base.test:
            allowed = row.fewer_bytes(base)
            bar = Bar(
                row.over(base), 0.0 if math.isnan(allowed) else allowed, (row.kind, base.kind),
                style.colour(encoding),
            )  # fmt: skip
            bars.setdefault(size, []).append(bar)
    return bars


def _legend(bars: Mapping[str, list[Bar]], shown: Sequence[str], arch: str) -> list[Artist]:
    present = [bar for each in bars.values() for bar in each]
    handles: list[Artist] = [
        Patch(label=f"ternops {each}", **style.bar(style.colour(each))) for each in shown
    ]
    if any(bar.colour == style.PAPER for bar in present):
        label = f"bitnet.cpp on {paper.CPUS[arch]} ({paper.SOURCE})"
        handles.append(Patch(label=label, **style.bar(style.PAPER)))
    if any(bar.allowed for bar in present):
        handles.append(Line2D([], [], label="what the bytes allow", **_LIMIT))
    return handles + style.hatched(kind for bar in present for kind in bar.kinds)


def _draw(
    figure: Figure, axes: Axes, middles: Sequence[float], groups: Sequence[Sequence[Bar]]
) -> None:
    """Bars, quartiles, limits; then the values, once it is known how wide the bars are."""
    width = min(_MAX_BAR, _GROUP / max(map(len, groups)))
    placed = []
    for middle, group in zip(middles, groups, strict=True):
        for place, bar in enumerate(group):
            x = middle + (place - (len(group) - 1) / 2) * width
            axes.bar(x, bar.ratio.median, 0.9 * width, **style.bar(bar.colour, *bar.kinds))
            median, low, high = bar.ratio
            if high > low:
                axes.errorbar(x, median, [[median - low], [high - median]], **style.WHISKER)
            if bar.allowed:
                axes.hlines(bar.allowed, x - width / 2, x + width / 2, **_LIMIT)
            placed.append((x, bar))
    _write_values(figure, axes, placed, width)


def _write_values(
    figure: Figure, axes: Axes, placed: Sequence[tuple[float, Bar]], width: float
) -> None:
    """Each value above its bar, upright where bars are narrow, clear of the limit."""
    peak = max(max(bar.ratio.high, bar.allowed) for _, bar in placed)
    figure.draw_without_rendering()  # lays out the axes: only then are sizes in pixels known
    box = axes.get_window_extent()
    left, right = axes.get_xlim()
    pitch = width * box.width / (right - left)
    for points, rotation in ((8.5, 0), (7.5, 90)):
        texts = [
            axes.annotate(
                f"{bar.ratio.median:.1f}", (x, 0), (0, 2.5), textcoords="offset points",
                ha="center", va="bottom", fontsize=points, rotation=rotation,
            )
            for x, bar in placed
        ]  # fmt: skip
        extents = [text.get_window_extent() for text in texts]
        if rotation or max(extent.width for extent in extents) < 0.95 * pitch:
            break
        for text in texts:
            text.remove()
    pixels = max(extent.height for extent in extents) + 4 * figure.dpi / 72
    room = peak * pixels / (box.height - pixels)  # the height of a text, in units of the axis
    axes.set_ylim(0, peak + room)
    for text, (x, bar) in zip(texts, placed, strict=True):
        covers = bar.ratio.high <= bar.allowed < bar.ratio.high + room
        text.xy = (x, bar.allowed if covers else bar.ratio.high)
