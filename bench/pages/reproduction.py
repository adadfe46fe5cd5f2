"""Write docs/REPRODUCTION.md: the paper's speed-ups beside a run's, and why they differ.

python -m bench.reproduction results/<cpu>
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.core.command import on_results
from bench.core.errors import ResultsError
from bench.core.results import (
    FP16,
    MEASURED,
    RUN_FILE,
    Results,
    Row,
    head_bytes,
    linear_bytes,
    load,
)
from bench.core.table import Cell, Table, number, table, text
from bench.pages import page
from bench.published import paper
from bench.published.paper import Published
from ternops.cost.layouts import SIZES

_TARGET = Path("docs") / "REPRODUCTION.md"
_ENCODING = "base3"
#: Bits a weight of bitnet.cpp's I2_S, which is what its x86 figures were measured with or near.
_PAPER_BITS = 2
#: A share of the bandwidth that is above another by less is no reason.
_MUCH = 0.04


@dataclass(frozen=True)
class Line:
    """One size: the two rows of here, and what the paper's figures are worth in GB/s.

    paper_fp16: None where the paper has none.
    """

    size: str
    fp16: Row
    base3: Row
    paper: Published
    paper_fp16: float | None
    paper_ternary: float

    @property
    def here(self) -> float:
        return self.base3.over(self.fp16).median

    @property
    def allowed(self) -> float:
        return self.base3.fewer_bytes(self.fp16)

    @property
    def kind(self) -> str:
        if self.base3.kind == self.fp16.kind == MEASURED:
            return MEASURED
        return f"{_ENCODING} {self.base3.kind} / {FP16} {self.fp16.kind}"


def write(folder: Path, target: Path = _TARGET) -> Path:
    """Write the page from the results in a folder; ResultsError or OSError if that cannot be."""
    results = load(folder)
    threads = results.threads[-1] if results.rows else 0
    published = paper.DECODE[results.arch]
    found = {
        size: _line(size, pair, published[size])
        for size in SIZES
        if size in published and (pair := _pair(results, size, threads))
    }
    if not found:
        raise ResultsError(f"{folder}: no size of the paper was measured")
    # Of the machine of the results, not of this one; older results do not say.
    cached = int(results.about.get("last_level") or 0)
    values = dict(
        folder=folder.as_posix(), source=paper.SOURCE, paper_cpu=paper.CPUS[results.arch],
        paper_bits=_PAPER_BITS, table=_table(list(found.values())), threads=threads,
        reasons={size: "; ".join(_reasons(each, cached)) for size, each in found.items()},
        missing=[size for size in SIZES if size in published and size not in found],
        **{name: results.about.get(name) for name in ("cpu", "tier", "command", "commit")},
    )  # fmt: skip
    return page.write(target, "reproduction.md.jinja", values)


def _pair(results: Results, size: str, threads: int) -> tuple[Row, Row] | None:
    """The fp16 and the base3 row of decoding."""
    for row in results.find(size=size, engine=_ENCODING, threads=threads, is_decode=True):
        if base := results.base_of(row):
            return base, row
    return None


def _line(size: str, pair: tuple[Row, Row], published: Published) -> Line:
    fp16 = published.fp16 and published.fp16 * (linear_bytes(size, FP16) + head_bytes(size)) / 1e9
    return Line(size, *pair, published, fp16, published.ternary * _paper_bytes(size) / 1e9)


def _paper_bytes(size: str) -> float:
    """Of a token with bitnet.cpp's ternary weights."""
    return SIZES[size].linear_weights * _PAPER_BITS / 8 + head_bytes(size)


def _table(lines: list[Line]) -> Table:
    columns: dict[str, Callable[[Line], Cell]] = {
        "size": lambda each: text(each.size),
        "paper": lambda each: number(each.paper.speedup, "{:.2f}x"),
        "here": lambda each: number(each.here, "{:.2f}x"),
        "over the paper": lambda each: number(
            each.paper.speedup and each.here / each.paper.speedup, "{:.2f}"
        ),
        "bytes allow": lambda each: number(each.allowed, "{:.2f}x"),
        "here: fp16, share of bandwidth": lambda each: number(each.fp16.share, "{:.0%}"),
        "base3, share": lambda each: number(each.base3.share, "{:.0%}"),
        "paper: fp16, GB/s": lambda each: number(each.paper_fp16, "{:.0f}"),
        "ternary, GB/s": lambda each: number(each.paper_ternary, "{:.0f}"),
        "rows": lambda each: text(each.kind),
    }
    return table("reproduction", "The paper's speed-ups, here", columns, lines)


def _reasons(line: Line, cached: int) -> Iterator[str]:
    """Why the two speed-ups differ, from the figures alone. cached: bytes of the last level."""
    size, fp16, base3 = line.size, line.fp16, line.base3
    if line.paper_fp16 is None:
        yield "the paper has no fp16 figure: the model did not fit its machine's memory"
    else:
        yield (
            f"the paper's ternary weights came at {line.paper_ternary / line.paper_fp16:.0%} of "
            f"the rate of its fp16 ones, here it is {base3.share / fp16.share:.0%}"
        )
    fewer = _paper_bytes(size) / base3.bytes_per_token
    if fewer > 1 + _MUCH:
        yield (
            f"a token of base3 (1.6 bits) reads {1 - 1 / fewer:.0%} less than one of "
            f"{_PAPER_BITS}-bit weights"
        )
    head = head_bytes(size) / base3.bytes_per_token
    if head > 1 / 3:
        yield f"the fp16 head is {head:.0%} of the bytes of a ternary token"
    if cached and (packed := linear_bytes(size, _ENCODING)) < cached:
        yield (
            f"all packed layers ({packed / 1e6:.0f} MB) could stay in the last-level cache "
            f"({cached / 1e6:.0f} MB), were it not for the head"
        )
    if fp16.kind != MEASURED:
        yield "fp16 is taken to be as fast as the bandwidth allows, which none is"
    lost = 1 - line.here / line.allowed
    if lost > _MUCH and fp16.kind == MEASURED:
        yield (
            f"{lost:.0%} of what the bytes allow is lost to what is not weights: attention, norms "
            "and the meetings of threads weigh more the faster a token is"
        )


main = partial(
    on_results, "bench.reproduction",
    "Write docs/REPRODUCTION.md: the paper's speed-ups beside a run's.", RUN_FILE,
    lambda folder: [write(folder)],
)  # fmt: skip
