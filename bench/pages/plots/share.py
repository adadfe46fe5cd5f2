"""What share of the limit each engine reaches, by size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from bench.core.results import ENGINES, TITLES, Results, Row, having
from bench.pages.plots import style

NEEDS = "row at all threads with a known limit"
_GAP = 2.0  # between sizes, in points


def draw(results: Results) -> Figure | None:
    """Dots by size, one panel for generating and one for reading, as far as limits are known."""
    rows = [r for r in results.find(threads=results.threads[-1]) if not math.isnan(r.share)]
    panels = {
        is_decode: found for is_decode in TITLES if (found := having(rows, is_decode=is_decode))
    }
    if not panels:
        return None
    engines = [each for each in results.engines if any(row.engine == each for row in rows)]
    ours = len(set(engines) & set(ENGINES))
    columns = ours if 0 < ours < len(engines) else len(engines)  # peers on a line of their own
    limits = " and ".join(dict.fromkeys(row.limited_by for row in rows if row.limited_by))
    figure = style.sheet(
        0.3 + 2.2 * len(panels), "Share of what this machine's limits allow",
        (f"{style.setting(results)[:-1]}, medians.",
         f"100%: what {limits or 'the limit'}, measured in the same run, would allow.",
         style.hollow(row.kind for row in rows)),
        style.marks(engines), columns=min(5, columns),
    )  # fmt: skip
    grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (is_decode, found) in zip(grid, panels.items(), strict=True):
        if len(panels) > 1 or not is_decode:
            axes.set_title(TITLES[is_decode])
        _draw(axes, [size for size in results.sizes if any(r.size == size for r in found)], found)
    return figure


def _draw(axes: Axes, sizes: Sequence[str], rows: Sequence[Row]) -> None:
    """Engines of a size beside one another, so that none hides another."""
    present = [[row for row in rows if row.size == size] for size in sizes]
    middles = style.label_sizes(axes, sizes, [len(each) + _GAP for each in present])
    for middle, found in zip(middles, present, strict=True):
        for place, row in enumerate(found):
            x = middle + place - (len(found) - 1) / 2
            axes.plot(x, row.share, linestyle="", **style.points(row.engine, row.kind, 4.8))
    axes.tick_params(axis="x", labelsize=8)
    axes.axhline(1, color=style.INK, linewidth=1.2, zorder=1.5)
    shares = [row.share for row in rows]
    # Dots need no zero; what lies close together is told apart better without it.
    bottom = min(0.75, 0.25 * math.floor((min(shares) - 0.02) / 0.25))
    top = max(1, *shares)
    axes.set_ylim(bottom, top + 0.04 * (top - bottom))
    axes.yaxis.set_major_locator(MultipleLocator(0.25 if bottom < 0.5 else 0.1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("share of the limit")
