"""Pictures of the cost model: against measurement, by part, by term of energy, by machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.core.cost import MAX_ERROR, Pair
from bench.core.results import ENGINES
from bench.pages.plots import style
from ternops.cost import Hardware, Prediction, load, plot, predict
from ternops.cost.layouts import SIZES

#: Profiles of the pictures by machine.
MACHINES = ("m2-ultra", "graviton-3", "epyc-7v13", "i7-13700h", "raspberry-pi-5")
_SHOWN = ("700M", "2B4T", "7B")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666")
_MARKERS = "osD^v"


def draw(folder: Path, machine: Hardware, pairs: Sequence[Pair]) -> list[Path]:
    """Write all pictures as PNG and SVG; their paths."""
    here = "all threads, context 128, modelled from calibrated kernels"
    there = "all cores, context 128, modelled from its profile"
    with style.applied():
        figures = {
            "cost-predicted": _against_measurement(pairs),
            "cost-parts": _stacked("time", machine, here, plot.draw_parts),
            "cost-energy": _stacked("energy", load(MACHINES[0]), there, plot.draw_terms),
            "cost-machines": _by_machine(),
        }
        return [path for name, each in figures.items() for path in style.save(each, folder, name)]


def _against_measurement(pairs: Sequence[Pair]) -> Figure:
    engines = [engine for engine in ENGINES if any(each.engine == engine for each in pairs)]
    threads = sorted({each.threads for each in pairs})
    figure = style.sheet(
        4.2, "Decoding: predicted from calibrated kernels, and measured",
        (f"A point a size, encoding and thread count ({', '.join(map(str, threads))}). "
         f"Band: {MAX_ERROR:.0%} off.",),
        style.marks(engines), columns=5,
    )  # fmt: skip
    axes = figure.subplots()
    values = [each.measured for each in pairs] + [each.predicted for each in pairs]
    ends = [min(values) / 1.2, max(values) * 1.2]
    low, high = ([end * factor for end in ends] for factor in (1 - MAX_ERROR, 1 + MAX_ERROR))
    axes.fill_between(ends, low, high, color="#EEEEEE", linewidth=0)
    axes.plot(ends, ends, color=style.INK, linewidth=1)
    for each in pairs:
        axes.plot(each.measured, each.predicted, **style.points(each.engine))
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        style.logarithmic(axis)
    axes.set(xlabel="measured, tokens/s", ylabel="predicted, tokens/s")
    return figure


def _stacked(
    what: str, machine: Hardware, words: str, draw: Callable[[Axes, Mapping[str, Prediction]], None]
) -> Figure:
    title = f"Decoding: where the {what} of a token goes"
    figure = style.sheet(3.2, title, (f"{machine.name}, {words}.",))
    draw(figure.subplots(), {
        f"{size}\n{engine}": predict(SIZES[size], machine, engine)
        for size in _SHOWN
        for engine in ("fp16", "base3")
    })  # fmt: skip
    return figure


def _by_machine() -> Figure:
    machines = [load(each) for each in MACHINES]
    handles = [
        Line2D([], [], label=each.name, color=colour, marker=marker)
        for each, colour, marker in zip(machines, _COLOURS, _MARKERS, strict=True)
    ]
    figure = style.sheet(
        3.4, "Decoding by size and machine, base3 (modelled)",
        ("All cores, context 128. Hollow: the profile has no rate of the kernel; at most, as the "
         "memory allows. Sizes that do not fit are left out.",),
        handles, columns=3,
    )  # fmt: skip
    axes = figure.subplots()
    sizes = [size for size in SIZES if size != "2B4T"]
    middles = dict(zip(sizes, style.label_sizes(axes, sizes), strict=True))
    for machine, colour, marker in zip(machines, _COLOURS, _MARKERS, strict=True):
        found = {size: each for size in sizes if (each := _possible(size, machine))}
        axes.plot(
            [middles[size] for size in found],
            [each.tokens_per_second for each in found.values()], color=colour, marker=marker,
            markerfacecolor="white" if any(e.unknown for e in found.values()) else colour,
        )  # fmt: skip
    axes.set_yscale("log")
    style.logarithmic(axes.yaxis)
    axes.set_ylabel("tokens/s")
    return figure


def _possible(size: str, machine: Hardware) -> Prediction | None:
    try:
        return predict(SIZES[size], machine, "base3")
    except ValueError:  # larger than the machine's memory
        return None
