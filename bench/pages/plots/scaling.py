"""Perplexity against total bits, and what groups and data types change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.pages.plots import style

#: Okabe-Ito colours by bits, a marker for each data type of that many; others are in the table.
LOOKS = {
    "sign": ("#CC79A7", "v"), "ternary": ("#D55E00", "D"), "ternary, mse": ("#D55E00", "d"),
    "2-bit, seq": ("#E69F00", "P"), "2-bit, mse": ("#E69F00", "X"), "int3": ("#56B4E9", "^"),
    "int4": ("#0072B2", "s"), "nf4": ("#0072B2", "o"), "fp4": ("#0072B2", "p"),
    "mxfp4": ("#0072B2", "*"), "nvfp4": ("#0072B2", "h"), "int8": ("#009E73", "<"),
    "float16": (style.INK, "."),
}  # fmt: skip
#: One data type a number of bits, in the picture of sizes.
_LINES = ("sign", "ternary, mse", "2-bit, mse", "int3", "nf4", "int8", "float16")
_GROUP = 64
_PAPER = (
    "The paper (arXiv 2212.09720, 19 M to 176 B parameters): at equal total bits 4 bits a weight "
    "are best nearly everywhere, and only small groups and the data type improve on that. "
    "Dotted: 4 bits and a float16 scale for a group of 64."
)
#: On the right: what is as good as float16 is below.
_LEAST = 0.003


def figure(found: Mapping[str, Any]) -> Figure:
    """On the left lines of sizes, on the right every data type and group of the largest."""
    rows = found["rows"]
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    parameters = [next(row["parameters"] for row in rows if row["size"] == size) for size in sizes]
    words = (
        f"Float models of {parameters[0] / 1e3:.0f} k to {parameters[-1] / 1e3:.0f} k parameters, "
        "trained on the bytes of Python's standard library, rounded and not trained further. "
        + _best_words(found["best"]),
        _PAPER,
    )
    shown = [name for name in LOOKS if any(row["name"] == name for row in rows)]
    handles = [
        Line2D([], [], color=LOOKS[name][0], marker=LOOKS[name][1], markersize=5, label=name,
               linewidth=1.1)
        for name in shown
    ]  # fmt: skip
    sheet = style.sheet(3.3, "k-bit scaling of tiny models", words, handles, 5, width=7.6)
    left, right = sheet.subplots(1, 2)
    _sizes(left, rows)
    _groups(right, [row for row in rows if row["size"] == sizes[-1]], sizes[-1])
    return sheet


def _best_words(best: list[dict[str, Any]]) -> str:
    """Which data type is best at how many of the numbers of bits, if there are any."""
    if not best:
        return ""
    names = [each["name"].split(", group")[0].split(", a scale")[0] for each in best]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    parts = ", ".join(f"{name} at {count}" for name, count in counts.items())
    low, high = (best[at]["bits"] / 1e6 for at in (0, -1))
    return (
        f"Of {len(names)} numbers of total bits from {low:.2g} to {high:.2g} million, which every "
        f"data type reaches, best are: {parts}."
    )


def _sizes(axes: Any, rows: list[dict[str, Any]]) -> None:
    for name in _LINES:
        line = [row for row in rows if row["name"] == name and row["group"] in (_GROUP, None)]
        color, marker = LOOKS[name]
        axes.plot(
            [row["bits"] / 1e6 for row in line], [row["perplexity"] for row in line],
            color=color, marker=marker, markersize=5, linewidth=1.1,
        )  # fmt: skip
    for axis in (axes.set_xscale, axes.set_yscale):
        axis("log")
    style.logarithmic(axes.xaxis)
    style.logarithmic(axes.yaxis)
    axes.set_xlabel("total bits (millions, log scale)")
    axes.set_ylabel("perplexity of a byte (log scale)")
    axes.set_title(f"four sizes, groups of {_GROUP}")


def _groups(axes: Any, rows: list[dict[str, Any]], size: str) -> None:
    floats = next(row["perplexity"] for row in rows if row["group"] is None)
    for name, (color, marker) in LOOKS.items():
        line = [
            row for row in rows if row["name"] == name and row["perplexity"] > (1 + _LEAST) * floats
        ]
        axes.plot(
            [row["bits a weight"] for row in line],
            [row["perplexity"] / floats - 1 for row in line],
            color=color, marker=marker, markersize=4.5, linewidth=0.8, alpha=0.9,
        )  # fmt: skip
    axes.axvline(4 + 16 / _GROUP, color=style.INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"])
    axes.set_ylim(_LEAST, None)
    same = [row["perplexity"] / floats - 1 for row in rows if row["name"] == "int8"]
    words = f"int8: within {_percent(max(map(abs, same)), None)}"
    axes.text(0.03, 0.03, words, transform=axes.transAxes, size=8, color=LOOKS["int8"][0])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlabel("bits a weight, scales included (log scale)")
    axes.set_ylabel("perplexity above float16's (log scale)")
    axes.set_title(f"{size}: from a scale a row to groups of 16")


def _percent(value: float, _: Any) -> str:
    return f"{np.format_float_positional(100 * value, trim='-', precision=2, fractional=False)}%"
