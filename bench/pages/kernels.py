"""The tables that bench.kernels prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.core.kernels import GEMM_PARTS, NO_PYTHON, OURS, REMARK, Limit, Product, Timings
from bench.core.results import MAX_SPREAD
from bench.core.table import Cell, Table, number, table, text
from bench.limits.levels import LEVELS

_Columns = dict[str, Callable[[Any], Cell]]


def limits(results: Timings, title: str) -> Table:
    """The fastest way to reach each limit."""
    kinds = dict.fromkeys((each.threads, each.what) for each in results.limits)
    fastest = [results.fastest(threads=threads, what=what) for threads, what in kinds]
    columns: _Columns = {
        "limit": lambda each: text(each.what),
        "threads": lambda each: number(each.threads, "{}"),
        "rate": lambda each: _limit_rate(results, each),
        "spread": lambda each: number(results.limits[each].spread, "{:.1%}"),
        "reached by": lambda each: text(each.how),
    }
    return table("limits", title, columns, [each for each in fastest if each])


def _limit_rate(results: Timings, limit: Limit) -> Cell:
    if limit.what == "barrier":
        return number(1e9 * results.limits[limit].median, "{:.0f} ns")
    unit = "GB/s" if limit.what in LEVELS else "GMAC/s"
    return number(results.limit_rate(limit) / 1e9, f"{{:.1f}} {unit}")


def products(results: Timings, title: str, shown: Sequence[Product]) -> Table:
    """One row each; a peer's tells how many times faster ours is."""
    ours = {_turn(each): each for each in reversed(shown) if each.engine == OURS}

    def limit(each: Product) -> Cell:
        roofs = results.roofs(each)
        return text(min(roofs, key=roofs.__getitem__, default=""))

    def faster(each: Product) -> Cell:
        base = ours.get(_turn(each)) if each.engine != OURS else None
        return _ratio(results, base, each)

    columns: _Columns = {
        "tokens": lambda each: number(each.tokens, "{}"),
        "W": lambda each: text(f"{each.rows}x{each.columns}"),
        "threads": lambda each: number(each.threads, "{}"),
        "input": lambda each: text(each.input),
        "what": lambda each: text(" ".join(filter(None, (each.who, each.how)))),
        "ms": lambda each: number(1e3 * results.products[each].median, "{:.3f}"),
        "spread": lambda each: _spread(results.products[each].spread),
        "GMAC/s": lambda each: number(results.rate(each) / 1e9, "{:.1f}"),
        "GB/s": lambda each: number(each.bytes / results.products[each].median / 1e9, "{:.1f}"),
        "limit": limit,
        "share": lambda each: number(results.share(each), "{:.1%}"),
        "ours faster": faster,
    }
    return table("products", title, columns, shown, _remarks(results, shown), _turn)


def _turn(product: Product) -> tuple[str, int]:
    """Those with the same one took turns."""
    return product.group, product.threads


def gemm_account(results: Timings) -> Table:
    """What the time of a product with many tokens goes into, in ms."""

    found = results.find(section="gemm")
    times = {_part(each, each.how): 1e3 * results.products[each].median for each in found}

    def time(how: str, whole: Product) -> Cell:
        return number(times[_part(whole, how)], "{:.2f}")

    def output(whole: Product) -> Cell:
        parts = sum(times[_part(whole, each)] for each in GEMM_PARTS)
        return number(times[_part(whole, NO_PYTHON)] - parts, "{:.2f}")

    columns: _Columns = {
        "tier": lambda each: text(each.tier),
        "what": lambda each: text(each.who),
        "threads": lambda each: number(each.threads, "{}"),
        "whole, ms": partial(time, NO_PYTHON),
        **{each: partial(time, each) for each in GEMM_PARTS},
        "output": output,
    }
    wholes = [each for each in found if each.how == NO_PYTHON]
    title = "gemm: where the time goes. Each part was run without the others; output is the rest, "
    title += "less than 0 where parts overlap"
    return table("gemm account", title, columns, wholes, group=_turn)


def _part(product: Product, how: str) -> tuple[str, str, int, str]:
    return product.tier, product.encoding, product.threads, how


def published(results: Timings, title: str) -> Table:
    """Mean and deviation, one row a shape."""
    shown = results.find(section="published")
    columns: _Columns = {
        "shape": lambda ours: text(ours.label),
        "ours, ms": lambda ours: _mean(results, ours),
    }
    for engine in dict.fromkeys(each.engine for each in shown if each.engine != OURS):
        peers = {each.group: each for each in reversed(shown) if each.engine == engine}
        of = partial(lambda peers, ours: peers.get(ours.group), peers)
        columns[f"{engine}, ms"] = partial(lambda of, ours: _mean(results, of(ours)), of)
        columns[f"ours faster than {engine}"] = partial(
            lambda of, ours: _ratio(results, ours, of(ours)), of
        )
    rows = [each for each in shown if each.engine == OURS]
    return table("published", title, columns, rows, _remarks(results, shown))


def _remarks(results: Timings, shown: Sequence[Product]) -> list[str]:
    """What one must know of engines to judge their figures."""
    found = {each.engine: results.products[each].metadata.get(REMARK, "") for each in shown}
    return [f"{engine}: {remark}" for engine, remark in found.items() if remark]


def _mean(results: Timings, product: Product | None) -> Cell:
    if product is None:
        return text(None)
    values = 1e3 * np.array(results.products[product].values)
    mean = float(values.mean())
    return Cell(f"{mean:.3f} ± {values.std(ddof=len(values) > 1):.3f}", mean)


def _spread(value: float) -> Cell:
    is_wide = value > MAX_SPREAD
    return number(value, "{:.1%} !" if is_wide else "{:.1%}", "warn" if is_wide else "")


def _ratio(results: Timings, ours: Product | None, other: Product | None) -> Cell:
    if ours is None or other is None:
        return text(None)
    ratio = results.ratio(ours, other)
    return number(ratio, "{:.2f}x", "" if ratio >= 1 else "warn")
