"""The tables of a run, made from its results."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.table import Table

from bench.core.results import FP16, MEASURED, MOST_SPREAD, Results, Row
from bench.published import paper
from bench.suites.run.plan import ENGINES

_DASH = "-"


def rows_of(results: Results, sizes: list[str], is_decode: bool) -> Table | None:
    """Every row of some sizes; None if there is none."""
    found = [row for row in results.rows if row.size in sizes and row.is_decode == is_decode]
    if not found:
        return None
    words = "Generating tokens (tg) from an empty context" if is_decode else "Reading a prompt (pp)"
    table = Table(title=f"{words}, batch 1", title_justify="left")
    for column in ("size", "test", "threads", "engine", "MB/token", "tokens/s", "spread", "share",
                   "of", "over fp16", "bytes allow", "paper", "J/token", ""):  # fmt: skip
        left = column in ("size", "test", "engine", "of", "")
        table.add_column(column, justify="left" if left else "right")
    for row in found:
        table.add_row(*_cells(results, row))
    return table


def _cells(results: Results, row: Row) -> Iterator[str]:
    base = results.base_of(row)
    yield from (row.size, row.test, str(row.threads), row.engine)
    yield f"{row.bytes_per_token / 1e6:.1f}" if row.bytes_per_token else _DASH
    yield number(row.speed)
    yield f"{row.spread:.1%}{' !' if row.spread > MOST_SPREAD else ''}"
    yield _DASH if math.isnan(row.share) else f"{row.share:.1%}"
    yield row.limited_by or _DASH
    yield f"{row.over(base).median:.2f}x" if base else ""
    allowed = row.fewer_bytes(base) if base else math.nan
    yield "" if math.isnan(allowed) else f"{allowed:.2f}x"
    published = paper.speedup(str(results.about.get("arch")), row.size)
    ours = base and row.engine in ENGINES
    yield f"{published:.2f}x" if published and ours and row.is_decode else ""
    yield _DASH if math.isnan(row.joules) else f"{row.joules:.3g} {row.energy}"
    yield "" if row.kind == MEASURED else row.kind


def number(value: float) -> str:
    """With three digits or more: 0.123, 1.23, 12.3, 123.4."""
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def limits_of(results: Results) -> Table | None:
    """What the machine can do; None if that was not measured."""
    limits = results.about.get("limits", [])
    if not limits:
        return None
    table = Table(title="Limits, measured in this run", title_justify="left")
    for column in ("limit", "threads", "rate", "how"):
        table.add_column(column, justify="right" if column in ("threads", "rate") else "left")
    for each in limits:
        table.add_row(each["what"], str(each["threads"]), f"{each['rate']:.1f} {each['unit']}",
                      each["how"])  # fmt: skip
    return table


def lossless_of(results: Results) -> Table | None:
    """The lossless table; None if nothing was proved."""
    proof = results.about.get("lossless")
    if not proof:
        return None
    table = Table(
        title=f"Lossless? Logits of {proof['tokens_against_numpy']} tokens against NumPy's, "
        f"perplexity of {proof['tokens']} and their most likely tokens against float64's",
        title_justify="left",
    )
    for column in ("tier", "weights", "threads", "logits", "perplexity", "same token"):
        right = column in ("perplexity", "same token")
        table.add_column(column, justify="right" if right else "left")
    for row in proof["table"]:
        identical = all(row["bit_identical"].values())
        digits = row["perplexity"]
        table.add_row(
            row["tier"], row["encoding"], ", ".join(row["bit_identical"]),
            "bit-identical" if identical else "[red]DIFFERENT[/red]",
            _DASH if digits is None else f"{digits:.6f}", f"{row['agreement']:.2%}",
        )  # fmt: skip
    return table


def products_of(results: Results) -> Table | None:
    """One product of every engine; None if none was measured."""
    products = results.about.get("products", [])
    if not products:
        return None
    table = Table(title="x @ W.T of a feed-forward layer", title_justify="left")
    for column in ("shape", "tokens", "engine", "ms", "spread", "GMAC/s", "version"):
        left = column in ("shape", "engine", "version")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for each in products:
        rows, columns = each["shape"]
        rate = each["tokens"] * rows * columns / each["seconds"]
        table.add_row(
            f"{rows} x {columns}", str(each["tokens"]), each["engine"],
            f"{1e3 * each['seconds']:.3f}", f"{each['spread']:.1%}", f"{rate / 1e9:.0f}",
            "; ".join(filter(None, (each["version"], each["remark"]))),
        )  # fmt: skip
    return table


def fp16_beside_llama(results: Results) -> Table | None:
    """Our fp16 baseline and llama.cpp's: speed-ups stand on it."""
    table = Table(title="The fp16 baseline beside llama.cpp F16", title_justify="left")
    for column in ("size", "test", "ternops", "llama.cpp", "ratio"):
        table.add_column(column, justify="left" if column in ("size", "test") else "right")
    for row in results.find(engine="llama.cpp F16"):
        for ours in results.find(
            size=row.size, engine=FP16, test=row.test, threads=row.threads
        ):  # fmt: skip
            table.add_row(row.size, row.test, number(ours.speed), number(row.speed),
                          f"{ours.over(row).median:.2f}x")  # fmt: skip
    return table if table.row_count else None
