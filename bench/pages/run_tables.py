"""The tables of a run, made from its results; run.json may list anything."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bench.core.measure import speedup
from bench.core.results import ENGINES, FP16, MAX_SPREAD, MEASURED, TITLES, Results, Row, parameters
from bench.core.table import Cell, Table, number, speed, table, text
from bench.published import paper

_Columns = dict[str, Callable[[Any], Cell]]


def all_of(results: Results) -> list[Table]:
    """Every table that there is something for, in the order of the page."""
    tables = [
        rows(results, True), rows(results, False), limits(results), _probes(results),
        ranks(results), lossless(results), products(results), _versions(results),
    ]  # fmt: skip
    return [each for each in tables if each.rows]


def rows(results: Results, is_decode: bool, sizes: Sequence[str] | None = None) -> Table:
    """Every row of generating or of reading, of some sizes (None: of all)."""
    found = [row for row in results.find(is_decode=is_decode) if sizes is None or row.size in sizes]
    columns: _Columns = {
        "size": _size,
        "engine": lambda row: text(row.engine),
        "threads": lambda row: number(row.threads, "{}"),
        "tokens/s": lambda row: speed(row.speed),
        "over fp16": lambda row: _over(results, row),
        "bytes allow": lambda row: number(
            row.fewer_bytes(base) if (base := results.base_of(row)) else None, "{:.2f}x"
        ),
        "paper": lambda row: _published(results, row),
        "share of limit": lambda row: number(row.share, "{:.1%}"),
        "spread": _spread,
        "kind": lambda row: Cell(row.kind, mark="" if row.kind == MEASURED else "kind"),
        "limit, tokens/s": lambda row: speed(row.limit or None),
        "limited by": lambda row: text(row.limited_by),
        "MB/token": lambda row: speed(row.bytes_per_token / 1e6 or None),
        "J/token": lambda row: number(row.joules, "{:#.3g}"),
        "energy": lambda row: text(row.energy),
        "test": lambda row: text(row.test),
    }
    title = TITLES[is_decode]
    return table("decode" if is_decode else "prefill", title, columns, found)


def _size(row: Row) -> Cell:
    count = parameters(row.size)
    return Cell(row.size, count if math.isfinite(count) else None)


def _spread(row: Row) -> Cell:
    if len(row.seconds) < 2:
        return text(None)
    if row.spread > MAX_SPREAD:
        hint = f"more than {MAX_SPREAD:.0%}: the machine was not quiet"
        return number(row.spread, "{:.1%} !", "warn", hint)
    return number(row.spread, "{:.1%}")


def _over(results: Results, row: Row) -> Cell:
    base = results.base_of(row)
    if base is None:
        return text(None)
    median, low, high = row.over(base)
    hint = f"quartiles {low:.2f} to {high:.2f}" if high > low else f"fp16 row {base.kind}"
    return number(median, "{:.2f}x", "" if base.kind == MEASURED else "kind", hint)


def _published(results: Results, row: Row) -> Cell:
    """The paper's figure, beside encodings."""
    shown = row.is_decode and row.engine in ENGINES and results.base_of(row) is not None
    return number(paper.speedup(results.arch, row.size) if shown else None, "{:.2f}x")


def limits(results: Results) -> Table:
    """What the machine can do, as the run has measured it first."""
    columns: _Columns = {
        "limit": lambda each: text(each.get("what")),
        "threads": lambda each: number(each.get("threads"), "{}"),
        "rate": lambda each: speed(each.get("rate")),
        "unit": lambda each: text(each.get("unit")),
        "how": lambda each: text(each.get("how")),
    }
    return table(
        "limits", "What this machine can do", columns, _records(results.about.get("limits"))
    )


def _probes(results: Results) -> Table:
    columns: _Columns = {
        "probe": lambda each: text(each.metadata.get("ternops_probe")),
        "for": lambda each: text(each.metadata.get("name")),
        "threads": lambda each: number(each.metadata.get("ternops_threads"), "{}"),
        "MiB": lambda each: number(_real(each.metadata.get("ternops_bytes")) / 2**20, "{:.0f}"),
        "GB/s": lambda each: speed(each.rate / 1e9),
    }
    title = "Reading memory, beside the rows that it limits"
    return table("probes", title, columns, results.probes)


def lossless(results: Results) -> Table:
    """A line for each tier and encoding."""
    proof = results.about.get("lossless")
    proof = proof if isinstance(proof, dict) else {}
    records = _records(proof.get("table"))
    columns: _Columns = {
        "tier": lambda each: text(each.get("tier")),
        "encoding": lambda each: text(each.get("encoding")),
    }
    found = (each.get("bit_identical") for each in records)
    for count in dict.fromkeys(n for each in found if isinstance(each, dict) for n in each):
        columns[f"same bits, {count} thread(s)"] = functools.partial(_equal, count)
    columns["perplexity"] = lambda each: number(each.get("perplexity"), "{:.6f}")
    columns["same likeliest token"] = lambda each: number(each.get("agreement"), "{:.2%}")
    verdict = "Lossless" if proof.get("lossless") is True else "NOT lossless"
    tokens = proof.get("tokens")
    over = f" Perplexities are over {tokens} tokens." if isinstance(tokens, int) else ""
    note = (
        f"{verdict}: logits compared, bit for bit, with a decoder in plain NumPy that holds the "
        f"same weights.{over} The likeliest token is compared with that of a float64 forward pass."
    )
    return table("lossless", "Is it lossless?", columns, records, (note,))


def _equal(count: str, record: dict[str, Any]) -> Cell:
    equal = record.get("bit_identical")
    if not isinstance(equal, dict) or count not in equal:
        return text(None)
    return Cell("yes") if equal[count] is True else Cell("DIFFERENT", mark="warn")


def products(results: Results) -> Table:
    """One product of every engine."""
    columns: _Columns = {
        "shape": lambda each: text(" x ".join(map(str, _list(each.get("shape"))))),
        "tokens": lambda each: number(each.get("tokens"), "{}"),
        "engine": lambda each: text(each.get("engine")),
        "ms": lambda each: number(1e3 * _real(each.get("seconds")), "{:.3f}"),
        "spread": lambda each: number(each.get("spread"), "{:.1%}"),
        "GMAC/s": lambda each: number(_rate(each) / 1e9, "{:.0f}"),
        "version": lambda each: text(each.get("version")),
        "remark": lambda each: text(each.get("remark")),
    }
    title = "x @ W.T of a feed-forward layer"
    return table("products", title, columns, _records(results.about.get("products")))


def ranks(results: Results, sizes: Sequence[str] | None = None) -> Table:
    """Several ranks beside one process, of some sizes (None: of all)."""
    found = [
        each
        for each in _records(results.about.get("ranks"))
        if sizes is None or each.get("size") in sizes
    ]
    columns: _Columns = {
        "size": lambda each: text(each.get("size")),
        "engine": lambda each: text(each.get("engine")),
        "test": lambda each: text(each.get("test")),
        "threads": lambda each: number(each.get("threads"), "{}"),
        "one process, tokens/s": lambda each: speed(_speed(each.get("alone"))),
        "ranks": lambda each: number(each.get("ranks"), "{}"),
        "ranks, tokens/s": lambda each: speed(_speed(each.get("together"))),
        "over one process": _over_one,
    }
    note = "The threads are those of all ranks together; both took turns, on this machine."
    return table("ranks", "Several ranks", columns, found, (note,))


def _speed(seconds: Any) -> float | None:
    values = [_real(each) for each in _list(seconds)]
    return 1 / statistics.median(values) if values and min(values) > 0 else None


def _over_one(record: dict[str, Any]) -> Cell:
    alone, together = (
        [_real(each) for each in _list(record.get(name))] for name in ("alone", "together")
    )
    if len(alone) != len(together) or not alone or not min(alone + together) > 0:
        return text(None)
    median, low, high = speedup(alone, together)
    return number(median, "{:.2f}x", "", f"quartiles {low:.2f} to {high:.2f}")


def _rate(product: dict[str, Any]) -> float:
    """Multiply-accumulates a second."""
    numbers = [_real(each) for each in [product.get("tokens"), *_list(product.get("shape"))]]
    seconds = _real(product.get("seconds"))
    return math.prod(numbers) / seconds if seconds > 0 else math.nan


def fp16_beside_llama(results: Results) -> Table:
    """Our fp16 baseline and llama.cpp's: speed-ups stand on it."""
    pairs = [
        (ours, row)
        for row in results.find(engine="llama.cpp F16")
        for ours in results.find(size=row.size, engine=FP16, test=row.test, threads=row.threads)
    ]
    columns: _Columns = {
        "size": lambda pair: _size(pair[0]),
        "test": lambda pair: text(pair[0].test),
        "ternops": lambda pair: speed(pair[0].speed),
        "llama.cpp": lambda pair: speed(pair[1].speed),
        "ratio": lambda pair: number(pair[0].over(pair[1]).median, "{:.2f}x"),
    }
    return table("fp16", "The fp16 baseline beside llama.cpp F16", columns, pairs)


def _versions(results: Results) -> Table:
    """The peers of the decoder, and what they say of themselves."""
    found = dict.fromkeys((row.engine, row.version) for row in results.rows if row.version)
    columns: _Columns = {
        "engine": lambda each: text(each[0]),
        "version": lambda each: text(each[1]),
    }
    return table("versions", "Versions of other engines", columns, list(found))


def _records(found: Any) -> list[dict[str, Any]]:
    """What run.json lists somewhere, if it is a list."""
    return [each for each in _list(found) if isinstance(each, dict)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _real(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
