"""Draw the decoding speed-up by model size from the committed results.

    python -m bench.plot RESULTS_FOLDER [--output FILE.png]

reads RESULTS_FOLDER/decode.json (a pyperf suite, seconds per token) and nothing else, and writes
RESULTS_FOLDER/speedup.png: above, the speed-up of ternary over fp16 decoding next to the one
published for bitnet.cpp; below, the tokens per second behind it.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench import paper
from bench.stats import FP16, Results, ResultsError, Spread, load, speedup
from ternops.files import replaced

RESULTS = "decode.json"
STYLE = Path(__file__).with_name("style.mplstyle")
# Okabe-Ito colours, told apart with any colour vision: one for each encoding, in order of the file.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "D", "^", "v")
GREY = "#555555"
GROUP = 0.84  # width of all bars of a size, as a part of the distance between sizes
ABOVE = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
FEWEST_SLOTS = 4  # a picture of fewer sizes keeps the width of their bars sensible


@dataclass(frozen=True)
class Bars:
    """One series of bars: a speed-up for each size that has one, and how the bars look."""

    label: str
    encoding: str | None  # None for published figures
    values: Mapping[str, Spread]
    look: Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """What is written above a bar: its median, placed by the end of its spread and its limit."""

    x: float
    median: float
    high: float
    limit: float


def _speedups(results: Results, encoding: str, threads: int) -> dict[str, Spread]:
    """Return the speed-up over fp16 of every size measured with both at that many threads."""
    spreads = {}
    for size in results.sizes:
        if pair := results.pair(size, encoding, threads):
            fp16, ternary = pair
            try:
                spreads[size] = speedup(fp16.seconds, ternary.seconds)
            except ValueError as error:
                raise ResultsError(f"{size}, {encoding}, {_plural(threads)}: {error}") from error
    return spreads


def _plural(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def _series(results: Results) -> list[Bars]:
    """Return the bars of the upper panel from left to right; ResultsError if none is measured."""
    series = []
    for index, encoding in enumerate(results.encodings):
        red, green, blue = to_rgb(COLOURS[index % len(COLOURS)])
        for threads in results.threads:
            full = threads == results.threads[-1]
            part = 1.0 if full else 0.45  # fewer threads: the same colour, mixed with white
            face = tuple(1 - part * (1 - channel) for channel in (red, green, blue))
            if values := _speedups(results, encoding, threads):
                label = f"ternops {encoding}, {_plural(threads)}"
                series.append(Bars(label, encoding, values, {"facecolor": face}))
    if not series:
        raise ResultsError("no size has both fp16 and a ternary encoding at the same threads")
    published = {size: paper.speedup(results.arch, size) for size in results.sizes}
    values = {size: Spread(v, v, v) for size, v in published.items() if v is not None}
    if values:
        label = f"bitnet.cpp, {paper.CPUS[results.arch]} ({paper.SOURCE})"
        look = {"facecolor": "white", "edgecolor": "#8A8A8A", "hatch": "////", "linewidth": 0.8}
        series.append(Bars(label, None, values, look))
    return series


def _limit(results: Results, encoding: str, size: str) -> float:
    """Return the bytes of a token with fp16 weights over those of the encoding, 0 if unknown."""
    for threads in results.threads:
        if pair := results.pair(size, encoding, threads):
            return pair[0].bytes_per_token / pair[1].bytes_per_token
    return 0.0


def _sizes_axis(axes: Axes, results: Results) -> None:
    """Label the sizes along x; below a size without fp16 rows say so."""
    sizes = results.sizes
    with_fp16 = {size for size, engine, _ in results.rows if engine == FP16}
    names = [size if size in with_fp16 else f"{size}\nno fp16" for size in sizes]
    axes.set_xticks(range(len(sizes)), names)
    margin = 0.5 + max(0, FEWEST_SLOTS - len(sizes)) / 2
    axes.set_xlim(-margin, len(sizes) - 1 + margin)


def _heading(axes: Axes, title: str, handles: Sequence[Artist]) -> None:
    """Put the title of a panel and its legend above the axes, where they hide nothing."""
    axes.legend(
        handles=handles,
        title=title,
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        borderpad=0,
        ncols=2 if len(handles) == 4 else 3,
    )


def _draw_speedups(figure: Figure, axes: Axes, results: Results) -> None:
    """Draw the bars with quartiles and values, and the limit that the bytes set."""
    series = _series(results)
    width = GROUP / len(series)
    values: list[Value] = []
    for position, size in enumerate(results.sizes):
        present = [bars for bars in series if size in bars.values]
        spans: dict[str, list[float]] = {}  # where the bars of each encoding are
        for place, bars in enumerate(present):
            x = position + (place - (len(present) - 1) / 2) * width
            median, low, high = bars.values[size]
            axes.bar(x, median, 0.92 * width, **bars.look)
            limit = 0.0
            if bars.encoding is not None:
                spread = [[median - low], [high - median]]
                axes.errorbar(x, median, spread, color="black", elinewidth=0.9, capsize=1.5)
                limit = _limit(results, bars.encoding, size)
                spans.setdefault(bars.encoding, []).append(x)
            values.append(Value(x, median, high, limit))
        for encoding, places in spans.items():
            ends = min(places) - width / 2, max(places) + width / 2
            axes.hlines(_limit(results, encoding, size), *ends, color="black", linewidth=1.8)
    handles: list[Artist] = [Patch(label=bars.label, **bars.look) for bars in series]
    handles.append(Line2D([], [], color="black", linewidth=1.8, label="what the bytes allow"))
    _heading(axes, "Speed-up over fp16 (median and quartiles of paired measurements)", handles)
    _sizes_axis(axes, results)
    axes.set_ylabel("times faster")
    _write_values(figure, axes, values, width)


def _write_values(figure: Figure, axes: Axes, values: Sequence[Value], width: float) -> None:
    """Write each value above its bar, as large as the bars' width allows, clear of the limits."""
    peak = max(max(value.high, value.limit) for value in values)
    figure.draw_without_rendering()  # lays out the axes: only then are sizes in pixels known
    box = axes.get_window_extent()
    left, right = axes.get_xlim()
    pitch = width * box.width / (right - left)
    for template, points, rotation in (("{:.1f}x", 8.5, 0), ("{:.1f}", 7, 0), ("{:.1f}", 6, 90)):
        look: dict[str, Any] = {"fontsize": points, "rotation": rotation, **ABOVE}
        texts = [
            axes.annotate(template.format(value.median), (value.x, 0), (0, 2.5), **look)
            for value in values
        ]
        extents = [text.get_window_extent() for text in texts]
        if rotation or max(extent.width for extent in extents) < 0.98 * pitch:
            break
        for text in texts:
            text.remove()
    pixels = max(extent.height for extent in extents) + 4 * figure.dpi / 72
    room = peak * pixels / (box.height - pixels)  # the height of a text, in units of the axis
    axes.set_ylim(0, peak + room)
    for value, text in zip(values, texts, strict=True):
        covers = value.high <= value.limit < value.high + room
        text.xy = (value.x, value.limit if covers else value.high)


def _brief(value: float) -> str:
    """Format a number of tokens/s with about two digits: 145, 16, 4.0, 0.66."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"


def _draw_speeds(axes: Axes, results: Results) -> None:
    """Draw tokens/s by size at the most threads, on a logarithmic axis."""
    threads = results.threads[-1]
    best: dict[int, tuple[float, str]] = {}  # by position: the fastest encoding and its colour
    looks = [(FP16, GREY, "s")]
    for index, encoding in enumerate(results.encodings):
        looks.append((encoding, COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]))
    for engine, colour, marker in looks:
        points: list[float] = []
        for position, size in enumerate(results.sizes):
            row = results.rows.get((size, engine, threads))
            speed = 1 / statistics.median(row.seconds) if row else math.nan
            points.append(speed)
            if row and engine == FP16:
                _note(axes, position, speed, colour, above=False)
            elif row:
                best[position] = max(best.get(position, (0.0, "")), (speed, colour))
        label = FP16 if engine == FP16 else f"ternops {engine}"
        axes.plot(points, color=colour, marker=marker, markersize=5, linewidth=1.4, label=label)
    for position, (speed, colour) in best.items():
        _note(axes, position, speed, colour, above=True)
    axes.set_yscale("log")
    axes.margins(y=0.16)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("tokens/s (log scale)")
    _sizes_axis(axes, results)
    _heading(axes, f"Decoding speed, {_plural(threads)} (median)", axes.get_lines())


def _note(axes: Axes, x: float, speed: float, colour: str, above: bool) -> None:
    """Write a speed beside its point, on the side that a falling line leaves free."""
    axes.annotate(
        _brief(speed),
        (x, speed),
        (1, 4) if above else (-1, -4),
        textcoords="offset points",
        ha="left" if above else "right",
        va="bottom" if above else "top",
        color=colour,
        fontsize="small",
    )


def _title(figure: Figure, results: Results) -> None:
    """Say at the top of the picture what was measured, and where."""
    threads = " and ".join(map(str, [*results.threads[:-1], _plural(results.threads[-1])]))
    how = "all rows measured in one run, fp16 and ternary taking turns"
    cpu = f"Ternary decoding on {results.cpu}"
    figure.text(0.012, 0.985, cpu, va="top", size=12.5, weight="bold")
    figure.text(0.012, 0.95, f"{results.tier}, {threads}, batch 1; {how}", va="top")


def draw(folder: Path, output: Path | None = None) -> Path:
    """Draw folder/decode.json into output (folder/speedup.png if None) and return its path.

    The picture replaces an older one at once or not at all. Raises ResultsError for results that
    cannot be drawn, OSError for files that cannot be read or written.
    """
    results = load(folder / RESULTS)
    target = folder / "speedup.png" if output is None else output
    with matplotlib.style.context(STYLE):
        figure = Figure()
        figure.set_layout_engine("constrained", rect=(0, 0, 1, 0.925), h_pad=0.08)
        upper, lower = figure.subplots(2, 1, height_ratios=(1.25, 1))
        _title(figure, results)
        _draw_speeds(lower, results)
        _draw_speedups(figure, upper, results)
        figure.align_ylabels((upper, lower))
        with replaced(target) as partial:
            # Without the version of matplotlib in it, the same results give the same bytes.
            figure.savefig(partial, format="png", metadata={"Software": None})
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 with one line on stderr if nothing could be drawn."""
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description="Draw speedup.png.")
    parser.add_argument("folder", type=Path, metavar="RESULTS_FOLDER", help="has a decode.json")
    default = "default: RESULTS_FOLDER/speedup.png"
    parser.add_argument("--output", type=Path, metavar="FILE.png", help=default)
    options = parser.parse_args(arguments)
    try:
        print(draw(options.folder, options.output))
    except ResultsError as error:
        print(f"bench.plot: {options.folder / RESULTS}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"bench.plot: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
