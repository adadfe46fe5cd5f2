"""Write docs/REPRODUCTION.md: the paper's speed-ups beside a run's, and why they differ.

python -m bench.reproduction results/<cpu>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.command import on_results
from bench.core.errors import ResultsError
from bench.core.results import ABOUT, FP16, MEASURED, Results, Row, load
from bench.pages import page
from bench.published import paper
from bench.suites.run.plan import linear_bytes
from ternops.caches import last_level_bytes
from ternops.cost.layouts import SIZES

_TARGET = Path("docs") / "REPRODUCTION.md"
_ENCODING = "base3"
#: Bits a weight of bitnet.cpp's I2_S, which is what its x86 figures were measured with or near.
_PAPER_BITS = 2
#: A share of the bandwidth that is above another by less is no reason.
_MUCH = 0.04


@dataclass(frozen=True)
class Line:
    """One size, in words."""

    size: str
    paper: str
    here: str
    over: str
    allowed: str
    fp16_share: str
    base3_share: str
    paper_fp16: str
    paper_ternary: str
    kind: str
    reason: str


def write(folder: Path, target: Path = _TARGET) -> Path:
    """Write the page from the results in a folder; ResultsError or OSError if that cannot be."""
    results = load(folder)
    threads = results.threads[-1] if results.rows else 0
    lines, missing = [], []
    for size in SIZES:
        pair = _pair(results, size, threads)
        figures = paper.DECODE[str(results.about["arch"])].get(size)
        if pair and figures:
            lines.append(_line(size, *pair, figures))
        elif figures:
            missing.append(size)
    if not lines:
        raise ResultsError(f"{folder}: no size of the paper was measured")
    arch = str(results.about["arch"])
    values = dict(
        folder=folder.as_posix(), source=paper.SOURCE, paper_cpu=paper.CPUS[arch],
        paper_bits=_PAPER_BITS, lines=lines, missing=missing, threads=threads,
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


def _line(size: str, fp16: Row, base3: Row, figures: paper.Decode) -> Line:
    here, allowed = base3.over(fp16).median, base3.fewer_bytes(fp16)
    config = SIZES[size]
    head = 2 * config.vocabulary * config.hidden
    ternary_bytes = config.linear_weights * _PAPER_BITS / 8 + head
    ternary = figures.ternary * ternary_bytes / 1e9
    half = None
    if figures.fp16 is not None:
        half = figures.fp16 * (linear_bytes(size, FP16) + head) / 1e9
    published = figures.speedup
    kinds = dict.fromkeys((base3.kind, fp16.kind))
    return Line(
        size,
        f"{published:.2f}x" if published else "-",
        f"{here:.2f}x",
        f"{here / published:.2f}" if published else "-",
        f"{allowed:.2f}x",
        f"{fp16.share:.0%}",
        f"{base3.share:.0%}",
        f"{half:.0f}" if half else "-",
        f"{ternary:.0f}",
        " / ".join(f"{name} {kind}" for name, kind in zip(
            (_ENCODING, FP16), (base3.kind, fp16.kind), strict=True
        )) if len(kinds) > 1 or base3.kind != MEASURED else MEASURED,
        _reason(size, fp16, base3, here, allowed, half, ternary, ternary_bytes),
    )  # fmt: skip


def _reason(
    size: str, fp16: Row, base3: Row, here: float, allowed: float, half: float | None,
    ternary: float, ternary_bytes: float,
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
        reasons.append(f"the float16 head is {head:.0%} of the bytes of a ternary token")
    cached = last_level_bytes()
    if linear_bytes(size, _ENCODING) < cached:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 with one line if nothing could be written."""
    words = "Write docs/REPRODUCTION.md: the paper's speed-ups beside a run's."
    return on_results("bench.reproduction", words, ABOUT, arguments, lambda folder: [write(folder)])
