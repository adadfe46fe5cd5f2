"""Pictures of predictions: time by part and energy by term, as stacked bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ternops.files import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ternops.cost.predict import Prediction

#: Okabe-Ito colours, told apart with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
_KINDS = (".png", ".svg", ".pdf")
_INCHES_A_BAR, _MIN_INCHES, _HEIGHT = 0.9, 6.4, 4.0


def draw_parts(axes: Axes, predictions: Mapping[str, Prediction]) -> None:
    """Milliseconds a token by part of the decoder."""
    _stack(axes, {
        label: {name: 1e3 * part.seconds / each.work.tokens for name, part in each.parts.items()}
        for label, each in predictions.items()
    })  # fmt: skip
    axes.set_ylabel("ms a token")


def draw_terms(axes: Axes, predictions: Mapping[str, Prediction]) -> None:
    """Joules a token by where they go, of the predictions that have any."""
    _stack(axes, {label: each.terms for label, each in predictions.items() if each.terms})
    axes.set_ylabel("J a token")


def _stack(axes: Axes, bars: Mapping[str, Mapping[str, float]]) -> None:
    names = list(dict.fromkeys(name for each in bars.values() for name in each))
    bottoms = [0.0] * len(bars)
    for number, name in enumerate(names):
        heights = [each.get(name, 0.0) for each in bars.values()]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.bar(range(len(bars)), heights, 0.7, bottoms, color=colour, label=name)
        bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]
    # A name may have a $ in it, and is no formula.
    axes.set_xticks(range(len(bars)), list(bars), parse_math=False)
    if names:
        axes.legend(fontsize=8, frameon=False)


def check(path: Path) -> None:
    """ValueError for a name that does not end as a picture's."""
    if path.suffix.lower() not in _KINDS:
        raise ValueError(f"--plot {str(path)!r}: expected a name that ends in {', '.join(_KINDS)}")


def write(path: Path, predictions: Mapping[str, Prediction]) -> Path:
    """Draw both into a .png, .svg or .pdf file; its path.

    Raises ValueError for another ending, or if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    check(path)
    if not predictions:
        raise ValueError(f"--plot {str(path)!r}: nothing to draw, no combination can run")
    drawn = [draw_parts]
    if any(each.terms for each in predictions.values()):
        drawn.append(draw_terms)
    width = max(_MIN_INCHES, _INCHES_A_BAR * len(predictions) * len(drawn))
    figure = Figure(figsize=(width, _HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for draw, axes in zip(drawn, panels, strict=True):
        draw(axes, predictions)
    with replaced(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())
    return path
