"""Tokens a second of every engine, at the sizes where peers were measured too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.core.results import ENGINES, Results, Row, having
from bench.pages.plots import style

NEEDS = "row of another engine at all threads"
_TITLES = {True: "generating tokens", False: "reading a prompt"}
_BAR = 0.19  # inches


def draw(results: Results) -> Figure | None:
    """Bars by engine: a line of panels a size, on the left generating, on the right reading."""
    panels = _panels(results)
    if not panels:
        return None
    sizes = list(dict.fromkeys(size for size, _ in panels))
    tests = sorted({is_decode for _, is_decode in panels}, reverse=True)
    names = {}
    for size in sizes:
        present = {row.engine for key, found in panels.items() if key[0] == size for row in found}
        names[size] = [each for each in results.engines if each in present]
    heights = [_BAR * len(names[size]) + 0.42 for size in sizes]
    rows = [row for found in panels.values() for row in found]
    figure = style.sheet(
        sum(heights), "Beside other engines: tokens/s",
        (f"{style.setting(results)} Medians and quartiles.",),
        style.hatched(row.kind for row in rows), columns=1,
    )  # fmt: skip
    grid = figure.subplots(len(sizes), len(tests), squeeze=False, height_ratios=heights)
    for line, size in zip(grid, sizes, strict=True):
        for axes, is_decode in zip(line, tests, strict=True):
            found = panels.get((size, is_decode), [])
            if not found:
                axes.set_visible(False)
                continue
            axes.set_title(f"{size}, {_TITLES[is_decode]} ({found[0].test})")
            _draw(axes, names[size], found, labelled=axes is line[0] or not line[0].get_visible())
    return figure


def _panels(results: Results) -> dict[tuple[str, bool], list[Row]]:
    """(size, whether tokens are generated) -> the rows, of one test, if a peer is among them."""
    panels: dict[tuple[str, bool], list[Row]] = {}
    for size in results.sizes:
        for is_decode in _TITLES:
            same = {"size": size, "is_decode": is_decode, "threads": results.threads[-1]}
            rows = results.find(**same)
            tests = [row.test for row in rows if row.engine not in ENGINES]
            if tests:
                panels[size, is_decode] = having(rows, test=tests[0])
    return panels


def _draw(axes: Axes, names: Sequence[str], rows: Sequence[Row], labelled: bool) -> None:
    """A bar an engine, ours above, with its value at the end."""
    ends = []
    for row in rows:
        place = names.index(row.engine)
        low, high = 1 / np.percentile(row.seconds, (75, 25))
        ends.append(high)
        axes.barh(place, row.speed, 0.78, **style.bar(style.colour(row.engine), row.kind))
        if high > low:
            ends_of = [[row.speed - low], [high - row.speed]]
            axes.errorbar(row.speed, place, xerr=ends_of, **style.WHISKER)
        axes.annotate(
            brief(row.speed), (high, place), (4, 0), textcoords="offset points", va="center",
            fontsize=8,
        )  # fmt: skip
    labels = [f"ternops {e}" if e in ENGINES else e for e in names]
    axes.set_yticks(range(len(names)), labels if labelled else [""] * len(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.2 * max(ends))
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])


def brief(value: float) -> str:
    """With about three digits: 145, 16.1, 4.03, 0.66."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"
