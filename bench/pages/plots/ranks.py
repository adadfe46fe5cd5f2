"""Tokens a second by the number of ranks, and where the time of a token goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.core.links import Curve
from bench.core.results import plural
from bench.pages.plots import style
from ternops.cost.ranks import BANDWIDTH, LATENCY, OWN, SHARED

#: Okabe-Ito colours by layout and by where time goes.
_LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
_TERMS = {SHARED: "#0072B2", OWN: "#56B4E9", LATENCY: "#D55E00", BANDWIDTH: "#E69F00"}


def speeds(curves: Sequence[Curve], machine: str, encoding: str) -> Figure:
    """A panel for each link, a line for each layout; hollow where there are several stages."""
    sizes = list(dict.fromkeys(each.size for each in curves))
    links = list(dict.fromkeys(each.link.name for each in curves))
    sequences = curves[0].sequences
    words = (
        f"Predicted: {encoding}, ranks like {machine}, one a machine. The "
        "fastest layout of each number of ranks, from "
        "the first one on that has memory for the model; dashed: as many times faster as ranks.",
    )
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.1, label=size)
        for size, (colour, marker) in zip(sizes, _LOOKS, strict=False)
    ]
    hollow: dict[str, Any] = {
        "color": style.GREY,
        "marker": "o",
        "markerfacecolor": "white",
        "linestyle": "",
    }
    if any(found.layout.pp > 1 for each in curves for found in each.found):
        handles.append(Line2D([], [], label="stages (pp)", markersize=5, **hollow))
    title = f"Several ranks, {plural(sequences, 'sequence')}"
    sheet = style.sheet(4.6, title, words, handles, 5, width=7.6)
    panels = sheet.subplots(-(-len(links) // 2), 2, sharex=True, sharey=True).flat
    for axes, name in zip(panels, links, strict=True):
        for each in (each for each in curves if each.link.name == name):
            _line(axes, each, *_LOOKS[sizes.index(each.size)])
        axes.set_title(f"{name}: {_link_words(next(e for e in curves if e.link.name == name))}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        _ranks(axes, curves)
        style.logarithmic(axes.yaxis)
    sheet.supxlabel("ranks", size=9)
    sheet.supylabel("tokens/s", size=9)
    return sheet


def _link_words(each: Curve) -> str:
    link = each.link
    return f"{1e6 * link.latency_s:g} us, {link.bytes_per_s / 1e9:.3g} GB/s"


def _line(axes: Any, each: Curve, colour: str, marker: str) -> None:
    if not each.found:
        return
    counts = [found.layout.ranks for found in each.found]
    values = [found.tokens_per_second for found in each.found]
    axes.plot(counts, values, color=colour, linewidth=1.1)
    axes.plot(
        [counts[0], counts[-1]], [values[0], values[0] * counts[-1] / counts[0]], color=colour,
        linewidth=0.6, linestyle="--", alpha=0.5, scaley=False,
    )  # fmt: skip
    for found, count, value in zip(each.found, counts, values, strict=True):
        face = colour if found.layout.pp == 1 else "white"
        axes.plot(count, value, marker, color=colour, markersize=4.5, markerfacecolor=face)


def _ranks(axes: Any, curves: Sequence[Curve]) -> None:
    counts = sorted({found.layout.ranks for each in curves for found in each.found})
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def times(each: Curve, machine: str, encoding: str) -> Figure:
    """Milliseconds of a token by where they go, a bar for each number of ranks."""
    words = (
        f"{each.size} over {each.link.name} ({_link_words(each)}), {encoding}, ranks like "
        f"{machine}, {plural(each.sequences, 'sequence')}; predicted. Shared work: reading and "
        "computing weights and keys. Own work: what every rank does, or waits for, itself.",
    )
    handles = [Patch(facecolor=colour, label=name) for name, colour in _TERMS.items()]
    sheet = style.sheet(2.8, "Where the time of a token goes", words, handles, 4)
    axes = sheet.subplots()
    counts = [str(found.layout.ranks) for found in each.found]
    below = [0.0] * len(counts)
    totals = [math.fsum(found.seconds.values()) for found in each.found]
    for name, colour in _TERMS.items():
        parts = [
            found.seconds[name] / total for found, total in zip(each.found, totals, strict=True)
        ]
        axes.bar(counts, parts, 0.7, below, color=colour)
        below = [low + part for low, part in zip(below, parts, strict=True)]
    for at, total in enumerate(totals):
        axes.text(at, 1.02, f"{1e3 * total:.3g}", ha="center", size=8)
    axes.set(xlabel="ranks; above: ms a token", ylabel="part of the time", ylim=(0, 1.1))
    return sheet
