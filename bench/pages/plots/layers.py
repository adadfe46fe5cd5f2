"""A product of one token by layers of PyTorch and ours, and tokens a second of a whole model."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.pages.plots import style

_OURS = "#0072B2"
_PRODUCTS = {
    "torch_bfloat16": "torch bfloat16", "torch_int8": "torch int8",
    "ternary_linear": "TernaryLinear",
}  # fmt: skip
_MODELS = {"transformers": "transformers", "accelerated": "accelerate",
           "own_decoder": "ternops.decoder"}  # fmt: skip


def figure(found: dict[str, Any]) -> Figure | None:
    """From what bench.torch has stored; None if one of both was not measured."""
    raw = found["raw"]
    rates = {name: raw.get(f"tokens_per_second_{name}") for name in _MODELS}
    if None in rates.values() or not _PRODUCTS.keys() <= raw.keys():
        return None
    picture = Figure(figsize=(style.WIDTH, 2.3), layout="constrained")
    products, models = picture.subplots(1, 2)
    times = [1e3 * raw[name] for name in _PRODUCTS]
    _bars(products, list(_PRODUCTS.values()), times, "ms, (1, 2560) times (2560, 6912)", 2)
    values = [float(each) for each in rates.values() if each is not None]
    _bars(models, list(_MODELS.values()), values, "tokens/s, layout of 2B4T", 1)
    picture.suptitle(
        f"{found['threads']} thread(s), {found['cpu']}, torch {found['torch']}", fontsize="medium"
    )
    return picture


def _bars(axes: Axes, names: list[str], values: list[float], label: str, digits: int) -> None:
    ours = (style.GREY if "torch " in each or each == "transformers" else _OURS for each in names)
    bars = axes.barh(names, values, color=list(ours))
    axes.bar_label(bars, [f"{each:.{digits}f}" for each in values], padding=3)
    axes.set(xlabel=label, xlim=(0, 1.18 * max(values)))
    axes.grid(visible=False)
    axes.invert_yaxis()
