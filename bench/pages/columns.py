"""The tables of the report: what each cell says, and the number that it is sorted by."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.results import MEASURED, MOST_SPREAD, Results, Row, parameters
from bench.pages.plots import style
from bench.published import paper

_NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    """Text, or a number with how it is written. mark: a word on how it looks; hint: on why."""

    text: str
    value: float | None = None
    mark: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """name: of its place in the page. numeric: for each column, whether it is sorted by numbers."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> list[bool]:
        return [
            any(row[i].value is not None for row in self.rows) for i in range(len(self.columns))
        ]


def number(value: Any, template: str = "{:.3g}", mark: str = "", hint: str = "") -> Cell:
    """A number as a cell; a dash for one that is not known."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        return Cell(_NOTHING)
    return Cell(template.format(value), float(value), mark, hint)


def text(value: Any) -> Cell:
    return Cell(_NOTHING if value is None or value == "" else str(value))


def speed(value: Any) -> Cell:
    """Tokens/s and the like: 0.123, 1.20, 12.3, 123.4."""
    large = isinstance(value, int | float) and value >= 10
    return number(value, "{:.1f}" if large else "{:#.3g}")


def all_of(results: Results) -> list[Table]:
    """Every table that there is something for, in the order of the page."""
    tables = [
        _rows(results, "decode", "Generating tokens (tg)", True),
        _rows(results, "prefill", "Reading a prompt (pp)", False),
        _limits(results), _probes(results), _lossless(results), _products(results),
        _versions(results),
    ]  # fmt: skip
    return [each for each in tables if each.rows]


def _rows(results: Results, name: str, title: str, is_decode: bool) -> Table:
    rows = [row for row in results.rows if row.is_decode == is_decode]
    columns: dict[str, Callable[[Row], Cell]] = {
        "size": _size,
        "engine": lambda row: text(row.engine),
        "threads": lambda row: number(row.threads, "{}"),
        "tokens/s": lambda row: speed(row.speed),
        "over fp16": lambda row: _over(results, row),
        "bytes allow": lambda row: _allowed(results, row),
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
    return _table(name, title, columns, rows)


def _size(row: Row) -> Cell:
    count = parameters(row.size)
    return Cell(row.size, count if math.isfinite(count) else None)


def _table(
    name: str, title: str, columns: dict[str, Callable[[Any], Cell]], records: Sequence[Any]
) -> Table:
    """A table without the columns in which nothing is known."""
    cells = {column: [cell(each) for each in records] for column, cell in columns.items()}
    kept = {c: found for c, found in cells.items() if any(each.text != _NOTHING for each in found)}
    return Table(name, title, list(kept), list(zip(*kept.values(), strict=True)))


def _spread(row: Row) -> Cell:
    if len(row.seconds) < 2:
        return Cell(_NOTHING)
    if row.spread > MOST_SPREAD:
        hint = f"more than {MOST_SPREAD:.0%}: the machine was not quiet"
        return number(row.spread, "{:.1%} !", "warn", hint)
    return number(row.spread, "{:.1%}")


def _over(results: Results, row: Row) -> Cell:
    base = results.base_of(row)
    if base is None:
        return Cell(_NOTHING)
    median, low, high = row.over(base)
    hint = f"quartiles {low:.2f} to {high:.2f}" if high > low else f"fp16 row {base.kind}"
    return number(median, "{:.2f}x", "" if base.kind == MEASURED else "kind", hint)


def _allowed(results: Results, row: Row) -> Cell:
    base = results.base_of(row)
    return number(row.fewer_bytes(base) if base else math.nan, "{:.2f}x")


def _published(results: Results, row: Row) -> Cell:
    """The paper's figure, beside encodings."""
    if not row.is_decode or not style.is_ours(row.engine) or results.base_of(row) is None:
        return Cell(_NOTHING)
    return number(paper.speedup(str(results.about.get("arch")), row.size), "{:.2f}x")


def _records(found: Any) -> list[dict[str, Any]]:
    """What run.json lists somewhere, if it is a list."""
    return [each for each in _list(found) if isinstance(each, dict)]


def _limits(results: Results) -> Table:
    columns: dict[str, Callable[[dict[str, Any]], Cell]] = {
        "limit": lambda each: text(each.get("what")),
        "threads": lambda each: number(each.get("threads"), "{}"),
        "rate": lambda each: speed(each.get("rate")),
        "unit": lambda each: text(each.get("unit")),
        "how": lambda each: text(each.get("how")),
    }
    return _table(
        "limits", "What this machine can do", columns, _records(results.about.get("limits"))
    )


def _probes(results: Results) -> Table:
    columns: dict[str, Callable[[Any], Cell]] = {
        "probe": lambda each: text(each.metadata.get("ternops_probe")),
        "for": lambda each: text(each.metadata.get("name")),
        "threads": lambda each: number(each.metadata.get("ternops_threads"), "{}"),
        "MiB": lambda each: number(_real(each.metadata.get("ternops_bytes")) / 2**20, "{:.0f}"),
        "GB/s": lambda each: speed(each.rate / 1e9),
    }
    title = "Reading memory, beside the rows that it limits"
    return _table("probes", title, columns, results.probes)


def _lossless(results: Results) -> Table:
    """A line for each tier and encoding."""
    proof = results.about.get("lossless")
    records = _records(proof.get("table")) if isinstance(proof, dict) else []
    columns: dict[str, Callable[[dict[str, Any]], Cell]] = {
        "tier": lambda each: text(each.get("tier")),
        "encoding": lambda each: text(each.get("encoding")),
    }
    counts = {
        count: None
        for each in records
        if isinstance(each.get("bit_identical"), dict)
        for count in each["bit_identical"]
    }
    for count in counts:
        columns[f"same bits, {count} thread(s)"] = functools.partial(_equal, count)
    columns["perplexity"] = lambda each: number(each.get("perplexity"), "{:.6f}")
    columns["same likeliest token"] = lambda each: number(each.get("agreement"), "{:.2%}")
    return _table("lossless", "Is it lossless?", columns, records)


def _equal(count: str, record: dict[str, Any]) -> Cell:
    equal = record.get("bit_identical")
    if not isinstance(equal, dict) or count not in equal:
        return Cell(_NOTHING)
    return Cell("yes") if equal[count] is True else Cell("DIFFERENT", mark="warn")


def _products(results: Results) -> Table:
    columns: dict[str, Callable[[dict[str, Any]], Cell]] = {
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
    return _table("products", title, columns, _records(results.about.get("products")))


def _rate(product: dict[str, Any]) -> float:
    """Multiply-accumulates a second."""
    numbers = [_real(each) for each in [product.get("tokens"), *_list(product.get("shape"))]]
    seconds = _real(product.get("seconds"))
    return math.prod(numbers) / seconds if seconds > 0 else math.nan


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _real(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _versions(results: Results) -> Table:
    """The peers of the decoder, and what they say of themselves."""
    found = dict.fromkeys((row.engine, row.version) for row in results.rows if row.version)
    columns: dict[str, Callable[[tuple[str, str]], Cell]] = {
        "engine": lambda each: text(each[0]),
        "version": lambda each: text(each[1]),
    }
    return _table("versions", "Versions of other engines", columns, list(found))


def best(results: Results) -> Iterator[str]:
    """A sentence on each encoding: its speed-ups where both sides were measured."""
    rows = style.decoding(results)
    for engine in filter(style.is_ours, results.engines):
        found = {
            size: row.over(base).median
            for (size, name), row in rows.items()
            if name == engine and (base := results.base_of(row)) is not None
            and row.kind == base.kind == MEASURED
        }  # fmt: skip
        if found:
            low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
            words = f"{found[high]:.2f} times as fast as fp16 at {high}"
            if low != high:
                words = (
                    f"{found[low]:.2f} (at {low}) to {found[high]:.2f} (at {high}) times as fast"
                )
                words += " as fp16"
            yield f"{engine} decodes {words}, with {style.plural(results.threads[-1])}"
