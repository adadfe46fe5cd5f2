"""The tables that bench.kernels prints."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from rich.table import Table
from rich.text import Text

from bench.core.kernels import OURS, REMARK, Product, Results
from bench.suites.kernels.cases import LEVELS


def limits(results: Results, title: str) -> Table:
    """The fastest way to reach each limit."""
    table = _table(title, "limit", "threads", "rate", "spread", "reached by")
    kinds = dict.fromkeys((each.threads, each.what) for each in results.limits)
    for threads, what in kinds:
        limit = results.fastest(threads=threads, what=what)
        if limit is None:
            continue
        case = results.limits[limit]
        if what == "barrier":
            rate = f"{1e9 * case.median:.0f} ns"
        else:
            unit = "GB/s" if what in LEVELS else "GMAC/s"
            rate = f"{results.limit_rate(limit) / 1e9:.1f} {unit}"
        table.add_row(what, str(threads), rate, f"{case.spread:.1%}", limit.how)
    return table


def products(results: Results, title: str, shown: Sequence[Product]) -> Table:
    """One row each; a peer's tells how many times faster ours is."""
    has_peers = any(each.engine != OURS for each in shown)
    has_limits = any(results.roofs(each) for each in shown)
    columns = ["tokens", "W", "threads", "input", "what", "ms", "spread", "GMAC/s", "GB/s"]
    columns += ["limit", "share"] * has_limits + ["ours faster"] * has_peers
    table = _table(title, *columns)
    for _, group in groupby(shown, lambda each: (each.group, each.threads)):
        rows = list(group)
        ours = next((each for each in rows if each.engine == OURS), None)
        for each in rows:
            case = results.products[each]
            cells: list[str | Text] = [
                str(each.tokens), f"{each.rows}x{each.columns}", str(each.threads), each.input,
                " ".join(filter(None, (each.who, each.how))), f"{1e3 * case.median:.3f}",
                _spread(case.spread), f"{results.rate(each) / 1e9:.1f}",
                f"{each.bytes / case.median / 1e9:.1f}",
            ]  # fmt: skip
            if has_limits:
                roofs, share = results.roofs(each), results.share(each)
                cells.append(min(roofs, key=lambda name: roofs[name], default=""))
                cells.append("" if share is None else f"{share:.1%}")
            if has_peers and ours is not None and each.engine != OURS:
                cells.append(_ratio(results.ratio(ours, each)))
            table.add_row(*cells)
        table.add_section()
    table.caption, table.caption_justify = "\n".join(_remarks(results, shown)), "left"
    return table


def published(results: Results, title: str) -> Table:
    """Mean and deviation, one row a shape."""
    shown = results.find(section="published")
    engines = list(dict.fromkeys(each.engine for each in shown if each.engine != OURS))
    columns = [column for each in engines for column in (f"{each}, ms", "ours faster")]
    table = _table(title, "shape", "ours, ms", *columns)
    for ours in (each for each in shown if each.engine == OURS):
        cells: list[str | Text] = [ours.label, _mean(results, ours)]
        for engine in engines:
            for peer in results.find(section="published", group=ours.group, engine=engine):
                cells += [_mean(results, peer), _ratio(results.ratio(ours, peer))]
                break
            else:
                cells += ["-", "-"]
        table.add_row(*cells)
    table.caption, table.caption_justify = "\n".join(_remarks(results, shown)), "left"
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _remarks(results: Results, shown: Sequence[Product]) -> list[str]:
    """What one must know of engines to judge their figures."""
    found = {each.engine: results.products[each].metadata.get(REMARK, "") for each in shown}
    return [f"{engine}: {remark}" for engine, remark in found.items() if remark]


def _mean(results: Results, product: Product) -> str:
    values = 1e3 * np.array(results.products[product].values)
    return f"{values.mean():.3f} ± {values.std(ddof=len(values) > 1):.3f}"


def _spread(value: float) -> str:
    return f"{value:.1%}{' !' if value > 0.1 else ''}"


def _ratio(value: float) -> Text:
    return Text(f"{value:.2f}x", "" if value >= 1 else "red")
