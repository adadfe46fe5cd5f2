"""What the pictures share: how engines and kinds of rows look, headings, axes, saving."""

from __future__ import annotations

import contextlib
import io
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.core.results import CYCLED, FP16, MEASURED, MODELLED, Results, Row, plural
from ternops.encodings import ENCODINGS
from ternops.files import replaced

_STYLE = Path(__file__).with_name("style.mplstyle")
#: Inches. Narrow, so that the fonts can still be read when a picture takes half of a page.
WIDTH = 6.4
INK, GREY, PAPER = "#222222", "#666666", "#BDBDBD"
#: Of quartiles.
WHISKER: dict[str, Any] = {"color": INK, "elinewidth": 0.8, "capsize": 1.5}
_LINE, _TITLE = 0.172, 0.25  # inches: a line of words or of the legend, the title
_CHARACTERS = 98  # in a line of words

_FEW_SIZES = 5
_MIN_SIZES = 3  # that an axis has room for

#: Engine -> colour, marker. Okabe-Ito colours, told apart with any colour vision.
_LOOKS = {
    FP16: (GREY, "s"),
    **{name: (each.color, each.marker) for name, each in ENCODINGS.items()},
    "llama.cpp F16": ("#222222", "X"),
    "llama.cpp TQ1_0": ("#E69F00", "P"),
    "llama.cpp TQ2_0": ("#56B4E9", "*"),
    "llama.cpp Q4_0": ("#F0E442", "h"),
}
_UNKNOWN = (PAPER, "<")
#: What is both is cross-hatched.
_HATCHES = {MEASURED: "", CYCLED: "/////", MODELLED: "\\\\\\\\\\"}
_MEANINGS = {
    CYCLED: "cycled: fewer layers, used in turn",
    MODELLED: "modelled, not timed",
}
#: What pictures of more than a few sizes show of the encodings, if a run has them.
_FIRST = ("base3", "two_bit")


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """This style and nothing of the user's own."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def colour(engine: str) -> str:
    return _LOOKS.get(engine, _UNKNOWN)[0]


def points(engine: str, kind: str = MEASURED, size: float = 5.5) -> dict[str, Any]:
    """Of a line's markers: hollow unless they were measured."""
    edge, marker = _LOOKS.get(engine, _UNKNOWN)
    face = edge if kind == MEASURED else "white"
    return {"color": edge, "marker": marker, "markersize": size, "markerfacecolor": face,
            "markeredgecolor": edge, "markeredgewidth": 1.1}  # fmt: skip


def marks(engines: Iterable[str]) -> list[Artist]:
    """The points of engines, for a legend."""
    return [Line2D([], [], linestyle="", label=each, **points(each)) for each in engines]


def bar(face: str, *kinds: str) -> dict[str, Any]:
    """Of a bar: hatched in white unless all of it was measured."""
    hatch = "".join(_HATCHES[kind] for kind in sorted(set(kinds)))
    return {"facecolor": face, "edgecolor": "white", "linewidth": 0, "hatch": hatch}


def hatched(kinds: Iterable[str]) -> list[Artist]:
    """What the hatches of these kinds mean, for a legend."""
    present = set(kinds) & _MEANINGS.keys()
    return [Patch(label=_MEANINGS[kind], **bar(GREY, kind)) for kind in sorted(present)]


def hollow(kinds: Iterable[str]) -> str:
    """A sentence on what a hollow point means; empty if no point is hollow."""
    found = sorted(set(kinds) & _MEANINGS.keys())
    return f"Hollow: {' or '.join(found)}." if found else ""


def encodings(results: Results) -> tuple[list[str], str]:
    """The encodings for which there is room beside one another, and a sentence on the others."""
    found = [each for each in results.engines if each in ENCODINGS]
    found.sort(key=lambda each: each not in _FIRST)
    room = len(_FIRST) if len(results.sizes) > _FEW_SIZES else len(found)
    return found[:room], f"{', '.join(found[room:])}: in the tables only." * bool(found[room:])


def decoding(results: Results, threads: int | None = None) -> dict[tuple[str, str], Row]:
    """(size, engine) -> the row of generating tokens, by default with all threads."""
    rows = results.find(is_decode=True, threads=threads or results.threads[-1])
    return {(row.size, row.engine): row for row in reversed(rows)}


def machine(results: Results) -> str:
    """The CPU and the tier, as far as they are known."""
    words = (str(results.about.get(each) or "") for each in ("cpu", "tier"))
    return ", ".join(" ".join(each.split()) for each in words if each) or "an unnamed CPU"


def setting(results: Results) -> str:
    """What a picture of all threads shows."""
    return f"{machine(results)}, {plural(results.threads[-1], 'thread')}, batch 1."


def sheet(
    height: float, title: str, words: Sequence[str], handles: Sequence[Artist] = (),
    columns: int = 3, width: float = WIDTH,
) -> Figure:  # fmt: skip
    """A figure with a heading and a legend above `height` inches of room for axes.

    words: one paragraph each.
    """
    lines = [line for each in words if each for line in textwrap.wrap(each, _CHARACTERS)]
    marks = 0.1 + _TITLE + _LINE * len(lines) + 0.06  # inches from the top to the legend
    head = marks + 1.05 * _LINE * -(-len(handles) // columns) + 0.06
    figure = Figure(figsize=(width, head + height))
    whole = head + height
    figure.set_layout_engine("constrained", rect=(0.006, 0.008, 0.988, height / whole))
    figure.text(0.012, 1 - 0.1 / whole, title, va="top", size=11.5, weight="bold")
    top = 1 - (0.1 + _TITLE) / whole
    figure.text(0.012, top, "\n".join(lines), va="top", size=8.5, color=GREY, linespacing=1.3)
    if handles:
        figure.legend(
            handles=_by_rows(handles, columns), loc="upper left", ncols=columns, borderpad=0.2,
            bbox_to_anchor=(0.007, 1 - marks / whole), borderaxespad=0, handletextpad=0.5,
        )  # fmt: skip
    return figure


def _by_rows(handles: Sequence[Artist], columns: int) -> list[Artist]:
    """A legend fills column after column; in this order it reads row by row."""
    columns = min(columns, len(handles))
    return [each for column in range(columns) for each in handles[column::columns]]


def label_sizes(axes: Axes, names: Sequence[str], widths: Sequence[float] = ()) -> list[float]:
    """Name the sizes along x, with a band under every other one; the x of their middles.

    widths: of each size, 1 by default; a few sizes are not stretched over the whole axis.
    """
    widths = widths or [1.0] * len(names)
    ends = list(itertools.accumulate(widths))
    middles = [end - width / 2 for end, width in zip(ends, widths, strict=True)]
    axes.set_xticks(middles, names)
    margin = max(0, _MIN_SIZES - len(names)) / 2 * ends[-1] / len(names)
    axes.set_xlim(-margin, ends[-1] + margin)
    for end, width in list(zip(ends, widths, strict=True))[1::2]:
        axes.axvspan(end - width, end, color="#F5F5F5", linewidth=0, zorder=0)
    return middles


def logarithmic(axis: Any) -> None:
    """Ticks at 1, 2 and 5, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def svg(figure: Figure) -> str:
    """A figure as an SVG document."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.png", folder / f"{name}.svg"]


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write <name>.png and <name>.svg, each whole or not at all.

    Neither versions nor dates are in them: the same results give the same bytes.
    """
    pixels, lines = paths = _paths(folder, name)
    with replaced(pixels) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
    with replaced(lines) as partial:
        partial.write_text(svg(figure), "utf-8")
    return paths


def remove(folder: Path, name: str) -> None:
    """Remove what `save` wrote for other results, if it is there."""
    for path in _paths(folder, name):
        path.unlink(missing_ok=True)
