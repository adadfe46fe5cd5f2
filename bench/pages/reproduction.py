"""Write docs/REPRODUCTION.md: the paper's speed-ups beside a run's, and why they differ.

python -m bench.reproduction results/<cpu>
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.core.command import on_results
from bench.core.errors import ResultsError
from bench.core.results import ABOUT, FP16, MEASURED, Results, Row, linear_bytes, load
from bench.core.table import Cell, Table, number, table, text
from bench.pages import page
from bench.published import paper
from ternops.cost.layouts import SIZES

_TARGET = Path("docs") / "REPRODUCTION.md"
_ENCODING = "base3"
#: Bits a weight of bitnet.cpp's I2_S, which is what its x86 figures were measured with or near.
_PAPER_BITS = 2
#: A share of the bandwidth that is above another by less is no reason.
_MUCH = 0.04


@dataclass(frozen=True)
class Line:
    """One size: shares of the bandwidth here, GB/s there, and why the speed-ups differ.

    paper, paper_fp16: None where the paper has none.
    """

    size: str
    paper: float | None
    here: float
    allowed: float
    fp16_share: float
    base3_share: float
    paper_fp16: float | None
    paper_ternary: float
    kind: str
    reason: str


def _table(lines: list[Line]) -> Table:
    columns: dict[str, Callable[[Line], Cell]] = {
        "size": lambda each: text(each.size),
        "paper": lambda each: number(each.paper, "{:.2f}x"),
        "here": lambda each: number(each.here, "{:.2f}x"),
        "over the paper": lambda each: number(each.paper and each.here / each.paper, "{:.2f}"),
        "bytes allow": lambda each: number(each.allowed, "{:.2f}x"),
        "here: fp16, share of bandwidth": lambda each: number(each.fp16_share, "{:.0%}"),
        "base3, share": lambda each: number(each.base3_share, "{:.0%}"),
        "paper: fp16, GB/s": lambda each: number(each.paper_fp16, "{:.0f}"),
        "ternary, GB/s": lambda each: number(each.paper_ternary, "{:.0f}"),
        "rows": lambda each: text(each.kind),
    }
    return table("reproduction", "The paper's speed-ups, here", columns, lines)


def write(folder: Path, target: Path = _TARGET) -> Path:
    """Write the page from the results in a folder; ResultsError or OSError if that cannot be."""
    results = load(folder)
    threads = results.threads[-1] if results.rows else 0
    lines, missing = [], []
    # Of the machine of the results, not of this one; older results do not say.
    cached = int(results.about.get("last_level") or 0)
    for size in SIZES:
        pair = _pair(results, size, threads)
        figures = paper.DECODE[str(results.about["arch"])].get(size)
        if pair and figures:
            lines.append(_line(size, *pair, figures, cached))
        elif figures:
            missing.append(size)
    if not lines:
        raise ResultsError(f"{folder}: no size of the paper was measured")
    arch = str(results.about["arch"])
    values = dict(
        folder=folder.as_posix(), source=paper.SOURCE, paper_cpu=paper.CPUS[arch],
        paper_bits=_PAPER_BITS, lines=lines, table=_table(lines), missing=missing, threads=threads,
        **{name: results.about.get(name) for name in ("cpu", "tier", "command", "commit")},
    )  # fmt: skip
    return page.write(target, "reproduction.md.jinja", values)


def _pair(results: Results, size: str, threads: int) -> tuple[Row, Row] | None:
    """The fp16 and the base3 row of decoding."""
    for row in results.find(size=size, engine=_ENCODING, threads=threads):
        base = results.base_of(row)
        if row.is_decode and base is not None:
            return base, row
    return None


def _line(size: str, fp16: Row, base3: Row, figures: paper.Published, cached: int) -> Line:
    here, allowed = base3.over(fp16).median, base3.fewer_bytes(fp16)
    config = SIZES[size]
    head = 2 * config.vocabulary * config.hidden
    ternary_bytes = config.linear_weights * _PAPER_BITS / 8 + head
    ternary = figures.ternary * ternary_bytes / 1e9
    half = None
    if figures.fp16 is not None:
        half = figures.fp16 * (linear_bytes(size, FP16) + head) / 1e9
    kind = MEASURED
    if {base3.kind, fp16.kind} != {MEASURED}:
        kind = f"{_ENCODING} {base3.kind} / {FP16} {fp16.kind}"
    return Line(
        size, figures.speedup, here, allowed, fp16.share, base3.share, half, ternary, kind,
        _reason(size, fp16, base3, here, allowed, half, ternary, ternary_bytes, cached),
    )  # fmt: skip


def _reason(
    size: str, fp16: Row, base3: Row, here: float, allowed: float, half: float | None,
    ternary: float, ternary_bytes: float, cached: int,
) -> str:  # fmt: skip
    """Why the two speed-ups differ, from the figures alone."""
    reasons = []
    if half is None:
        reasons.append("the paper has no fp16 figure: the model did not fit its machine's memory")
    else:
        reasons.append(
            f"the paper's ternary weights came at {ternary / half:.0%} of the rate of its fp16 "
            f"ones, here it is {base3.share / fp16.share:.0%}"
        )
    fewer = ternary_bytes / base3.bytes_per_token
    if fewer > 1 + _MUCH:
        reasons.append(
            f"a token of base3 (1.6 bits) reads {1 - 1 / fewer:.0%} less than one of "
            f"{_PAPER_BITS}-bit weights"
        )
    head = 2 * SIZES[size].vocabulary * SIZES[size].hidden / base3.bytes_per_token
    if head > 1 / 3:
        reasons.append(f"the fp16 head is {head:.0%} of the bytes of a ternary token")
    if cached and linear_bytes(size, _ENCODING) < cached:
        reasons.append(
            f"all packed layers ({linear_bytes(size, _ENCODING) / 1e6:.0f} MB) could stay in the "
            f"last-level cache ({cached / 1e6:.0f} MB), were it not for the head"
        )
    if fp16.kind != MEASURED:
        reasons.append("fp16 is taken to be as fast as the bandwidth allows, which none is")
    lost = 1 - here / allowed
    if lost > _MUCH and fp16.kind == MEASURED:
        reasons.append(
            f"{lost:.0%} of what the bytes allow is lost to what is not weights: attention, norms "
            "and the meetings of threads weigh more the faster a token is"
        )
    return "; ".join(reasons) + "."


main = partial(
    on_results, "bench.reproduction",
    "Write docs/REPRODUCTION.md: the paper's speed-ups beside a run's.", ABOUT,
    lambda folder: [write(folder)],
)  # fmt: skip
