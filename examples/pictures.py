"""What the examples draw of their results, in the style of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.pages.plots import style

#: Of bench's palette, told apart with any colour vision: network -> colour, marker, words.
_NETWORKS = {
    "ISTA": ("#BDBDBD", "v", "ISTA, float"),
    "FISTA": ("#666666", "^", "FISTA, float"),
    "ternary": ("#D55E00", "D", "ternary, any link"),
    "signs of A": ("#E69F00", "o", "one-bit, signs of A"),
    "one-bit": ("#0072B2", "s", "one-bit, signs learned"),
    "float": ("#009E73", "P", "float in blocks"),
}
BITNET_BITS = float(np.log2(3))


def draw_unrolling(found: dict[str, Any], folder: Path) -> list[Path]:
    """Error against depth, and bits a link."""
    with style.applied():
        return style.save(unrolling_figure(found), folder, "error")


def unrolling_figure(found: dict[str, Any]) -> Any:
    rows = found["rows"]
    shown = [each for each in _NETWORKS if each in {row["network"] for row in rows}]
    size, measured = (found["blocks"] * found[each] for each in ("unknowns", "measurements"))
    words = (
        f"Compressed sensing: {size} unknowns in {found['blocks']} blocks, {found['density']:.0%} "
        f"of them not zero, {measured} measurements at {-20 * np.log10(found['noise']):.0f} dB. "
        "Products with int8 activations on ternops' kernels.",
    )
    figure = style.sheet(2.9, "One-bit unrolling: error, and bits a link", words, _legend(shown), 3)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    depths = sorted({row["depth"] for row in rows})
    for name in shown:
        color, marker, _ = _NETWORKS[name]
        line = [row for row in rows if row["network"] == name]
        left.plot(
            [row["depth"] for row in line], [row["error_db"] for row in line], marker=marker,
            color=color, markersize=5, linewidth=1.2, linestyle="--" if "ISTA" in name else "-",
        )  # fmt: skip
    left.set_xscale("log", base=2)
    left.set_xticks(depths, [str(each) for each in depths])
    left.xaxis.set_minor_locator(NullLocator())
    left.set_xlabel("layers, or steps of the solver")
    left.set_ylabel("error (dB of the unknowns' energy)")
    _bars(right, [each for each in shown if "ISTA" not in each], rows, depths[-1])
    return figure


def draw_digits(found: dict[str, Any], folder: Path) -> list[Path]:
    """Samples beside images."""
    with style.applied():
        return style.save(digits_figure(found), folder, "samples")


def digits_figure(found: dict[str, Any]) -> Any:
    recognised, nearest = found["recognised"], found["bits to the nearest training image, median"]
    words = (
        f"{found['weights'] / 1e6:.1f} M ternary weights, {found['sampling steps']} steps on "
        "ternops' kernels. A support vector machine trained on images recognises "
        f"{recognised['conditioned']:.1%} of the samples and {recognised['held-out images']:.1%} "
        f"of held-out images. Of 256 bits, the median sample differs in {nearest['samples']:g} "
        "from the nearest training image, the median held-out image in "
        f"{nearest['held-out images']:g}.",
    )
    figure = style.sheet(3.2, "Bit Diffusion of digits, 64 pixels of 4 bits", words)
    for axes, kind, title in zip(
        figure.subplots(1, 2), ("samples", "images"), ("samples", "held-out images"), strict=True
    ):
        axes.imshow(_sheet(found[kind]), cmap="gray_r", vmin=0, vmax=15, interpolation="nearest")
        axes.set_title(title)
        axes.set_xticks([9 * at + 3.5 for at in range(10)], found[kind])
        axes.set_yticks([])
        axes.set_xlabel("the digit that was asked for" if kind == "samples" else "its digit")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


def _sheet(images: dict[str, list[str]]) -> Any:
    """Pixels of a column of images a digit, a pixel apart."""
    columns = []
    for texts in images.values():
        pixels = np.array([[int(each, 16) for each in text] for text in texts]).reshape(-1, 8, 8)
        columns.append(np.pad(pixels, ((0, 0), (0, 1), (0, 1))).reshape(-1, 9))
    return np.concatenate(columns, axis=1)[:-1, :-1]


def _legend(shown: list[str]) -> list[Artist]:
    return [
        Line2D([], [], color=color, marker=marker, markersize=5, label=words, linewidth=1.2,
               linestyle="--" if "ISTA" in name else "-")
        for name in shown for color, marker, words in [_NETWORKS[name]]
    ]  # fmt: skip


def _bars(axes: Any, shown: list[str], rows: list[dict[str, Any]], depth: int) -> None:
    """Bits of the deepest networks: by entropy filled, as stored outlined."""
    for at, name in enumerate(shown):
        color = _NETWORKS[name][0]
        row = next(each for each in rows if each["network"] == name and each["depth"] == depth)
        for shift, what, fill in ((-0.2, "entropy", True), (0.2, "stored", False)):
            axes.bar(at + shift, row[what], 0.36, facecolor=color if fill else "white",
                     edgecolor=color, linewidth=1.2)  # fmt: skip
            words, side = f"{row[what]:.3g}", "right" if fill else "left"
            axes.text(at + shift / 5, row[what] * 1.06, words, ha=side, size=6.5)
    axes.axhline(BITNET_BITS, color=style.INK, linewidth=0.8, linestyle=":")
    axes.text(1.5, BITNET_BITS * 1.08, "BitNet b1.58", size=7.5, ha="center", color=style.INK)
    axes.set_yscale("log", base=2)
    axes.set_ylim(1 / 16, 10)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(range(len(shown)), [_short(each) for each in shown], size=7.5)
    axes.set_ylabel("bits a link (log scale)")
    axes.set_xlabel("filled: entropy; outlined: stored")


def _short(name: str) -> str:
    return {"signs of A": "signs\nof A", "float": "float32\nin blocks", "one-bit": "one-bit",
            "ternary": "ternary"}[name]  # fmt: skip
