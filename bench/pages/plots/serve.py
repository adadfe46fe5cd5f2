"""Tokens a second by the number of clients, over HTTP and in a Batch, and the gaps between them."""

from __future__ import annotations

from statistics import median
from typing import Any

from matplotlib.figure import Figure

from bench.pages.plots import style

_COLOURS = {"Batch alone": style.GREY, "over HTTP": "#0072B2"}


def figure(found: dict[str, Any]) -> Figure | None:
    """From what bench.serve has stored; None if that section was not measured."""
    rows = found["raw"].get("throughput")
    if not rows:
        return None
    counts = [int(each) for each in rows]
    picture = Figure(figsize=(style.WIDTH, 2.8), layout="constrained")
    rates, gaps = picture.subplots(1, 2)
    for at, (name, colour) in enumerate(_COLOURS.items()):
        values = [median(pair[at] for pair in pairs) for pairs in rows.values()]
        rates.plot(counts, values, color=colour, marker="os"[at], label=name)
    rates.set(xlabel="clients", ylabel="tokens/s", xticks=counts, ylim=(0, None))
    rates.legend()
    for at, name in enumerate(("p50", "p95", "p99")):
        values = [1e3 * each[at] for each in found["raw"]["gaps"].values()]
        gaps.plot(counts, values, color=_COLOURS["over HTTP"], alpha=1 - 0.3 * at, marker="osD"[at],
                  label=name)  # fmt: skip
    gaps.set(xlabel="clients", ylabel="ms between tokens", xticks=counts, ylim=(0, None))
    gaps.legend()
    picture.suptitle(
        f"{found['size']} served on {found['threads']} thread(s), {found['cpu']}", fontsize="medium"
    )
    return picture
