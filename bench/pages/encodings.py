"""Write docs/ENCODINGS.md: what each encoding takes, loses and reaches, and whose idea it is.

python -m bench.kernels --only gemv-dram low-bit --output FOLDER
python -m bench.scaling --sizes 64x2 --output FOLDER
python -m bench.encodings FOLDER
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ternops
from bench.core.command import on_results
from bench.core.envelope import load_json
from bench.core.errors import ResultsError
from bench.core.kernels import Product, Timings, load_cases
from bench.core.pyperf_files import envelope_of, load_suite
from bench.core.results import KERNELS_FILE, SCALING_FILE, SCALING_FORMAT
from bench.core.table import Cell, Table, number, table, text
from bench.pages import page
from ternops.quantizers import DEFAULTS, METHODS

_TARGET = Path("docs") / "ENCODINGS.md"
_GROUP = 128  # where the method leaves it open, as of the kernels that are measured
_FLOATS = "float16"
#: Rows and columns that bits are counted of: a long row, and little beside it.
_SHAPE = (256, 4096)
_FP8 = "Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433, section 3"


class Entry(NamedTuple):
    """A row. weights: in words; asked: of `ternops.quantize`; error: its name in bench.scaling;
    speed: its name in bench.kernels; serves: who else has such weights."""

    weights: str
    asked: Mapping[str, Any]
    error: str
    speed: str
    serves: str = ""

    @property
    def call(self) -> str:
        """How to have it, in Python."""
        return f"`{', '.join(f'{name}={value!r}' for name, value in self.asked.items())}`"

    @property
    def group(self) -> int | str:
        """Columns that share a scale, "row" for all."""
        own = METHODS.get(self.method)
        fixed = own.group if own and own.is_fixed else None
        return self.asked.get("group") or fixed or "row"

    @property
    def method(self) -> str:
        return self.asked.get("method") or DEFAULTS[self.asked["encoding"]]

    @property
    def source(self) -> str:
        paper = METHODS[self.method].paper if self.method in METHODS else _FP8
        return f"{paper}; {self.serves}" if self.serves else paper

    def bits(self) -> float:
        """Bits a weight of a matrix in memory, scales included."""
        weight = np.random.default_rng(0).standard_normal(_SHAPE, np.float32)
        return ternops.quantize(weight, **self.asked).bits_per_weight


def _nibbles(weights: str, method: str, serves: str = "", **asked: Any) -> Entry:
    """Sixteen levels, in groups where the method leaves that open."""
    group = {} if METHODS[method].is_fixed else {"group": _GROUP}
    asked = {"encoding": "nibble", **group, "method": method, **asked}
    return Entry(weights, asked, method, "nibble/128", serves)


ENTRIES = (
    Entry("signs", {"encoding": "one_bit", "group": _GROUP}, "sign", "one_bit/128",
          "so have ParetoQ (arXiv 2502.02631) with 1 bit, BitDelta (arXiv 2402.10193) and "
          "BitStack (arXiv 2410.23918)"),
    Entry("trits", {"encoding": "base3", "group": _GROUP}, "ternary", "base3/128"),
    Entry("trits", {"encoding": "two_bit", "group": _GROUP}, "ternary", "two_bit/128"),
    Entry("trits", {"encoding": "tl1", "group": "row"}, "ternary", "tl1",
          "the encoding of Wang et al., Bitnet.cpp, arXiv 2502.11880"),
    Entry("trits", {"encoding": "tl2", "group": "row"}, "ternary", "tl2",
          "the encoding of Wang et al., Bitnet.cpp, arXiv 2502.11880"),
    Entry("trits, least squares",
          {"encoding": "base3", "group": _GROUP, "method": "mse", "levels": 3},
          "ternary, mse", "base3/128"),
    Entry("trits, 2/3 of the largest weight",
          {"encoding": "base3", "group": _GROUP, "method": "seq", "levels": 3},
          "ternary, seq", "base3/128"),
    Entry("-3, -1, 1, 3", {"encoding": "two_bit", "group": _GROUP, "method": "seq", "levels": 4},
          "2-bit, seq", "two_bit/128 4 levels"),
    Entry("-3, -1, 1, 3, least squares",
          {"encoding": "two_bit", "group": _GROUP, "method": "mse", "levels": (-3, -1, 1, 3)},
          "2-bit, mse", "two_bit/128 4 levels"),
    Entry("-4 to 3", {"encoding": "three_bit", "group": _GROUP}, "int3", "three_bit/128"),
    Entry("-4 to 3, a step by least squares",
          {"encoding": "three_bit", "group": _GROUP, "method": "lsq"}, "int3, lsq",
          "three_bit/128"),
    _nibbles("-8 to 7", "int4"),
    Entry("-8 to 7, a step by least squares",
          {"encoding": "nibble", "group": _GROUP, "method": "lsq"}, "int4, lsq", "nibble/128"),
    _nibbles("quantiles of N(0, 1)", "nf4"),
    _nibbles("quantiles of the matrix", "quantile"),
    _nibbles("floats, E2M1", "fp4"),
    _nibbles("floats, E1M2", "e1m2"),
    _nibbles("floats, E3M0", "e3m0"),
    _nibbles("E2M1 times a power of two", "mxfp4"),
    _nibbles("E2M1 times an E4M3", "nvfp4"),
    _nibbles("powers of two, no zero", "denseshift"),
    _nibbles("-8 to 7 times a power of two", "bct", levels=16),
    Entry("-127 to 127", {"encoding": "eight_bit", "group": _GROUP}, "int8", "eight_bit/128"),
    Entry("floats, E4M3", {"encoding": "fp8", "method": "e4m3"}, "e4m3", "e4m3"),
    Entry("floats, E5M2", {"encoding": "fp8", "method": "e5m2"}, "e5m2", "e5m2"),
)  # fmt: skip


class Losses:
    """What bench.scaling found of the largest of its models."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        last = found["rows"][-1]["size"]
        rows = [each for each in found["rows"] if each["size"] == last]
        self.size, self.parameters = last, rows[0]["parameters"]
        self._by_name = {(each["name"], each["group"]): each["perplexity"] for each in rows}
        self.floats = self._by_name[_FLOATS, None]

    def of(self, entry: Entry) -> float | None:
        """The perplexity; None where it was not measured."""
        return self._by_name.get((entry.error, entry.group))


class Speeds:
    """What bench.kernels found of one token and all threads, weights from memory."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        # Of the section of all numbers of bits where an encoding is in both.
        made = [
            each
            for section in ("gemv-dram", "low-bit")
            for each in timings.find(section=section, tokens=1)
        ]
        self.threads = max((each.threads for each in made), default=0)
        self._products = {each.encoding: each for each in made if each.threads == self.threads}

    def find(self, entry: Entry) -> Product | None:
        return self._products.get(entry.speed)

    @property
    def spread(self) -> float:
        """The largest of them: how much the rounds of a figure differ."""
        return max(self._timings.products[each].spread for each in self._products.values())

    def rate(self, product: Product) -> float:
        """Weights a second."""
        return self._timings.rate(product)

    def share(self, product: Product) -> float | None:
        """Of the bandwidth of reading."""
        return self._timings.share(product)


def write(folder: Path, target: Path = _TARGET) -> Path:
    """Write the page from a folder's kernels.json and scaling.json; ResultsError or OSError if that
    cannot be."""
    found = load_json(folder / SCALING_FILE, "bench.scaling", SCALING_FORMAT)
    path = folder / KERNELS_FILE
    speeds, losses = Speeds(Timings(load_cases(path))), Losses(found)
    if not speeds.threads:
        raise ResultsError(f"{path}: no product of one token with weights from memory")
    about = envelope_of(load_suite(path))
    values = dict(
        folder=folder.as_posix(), table=_table(losses, speeds), losses=losses, group=_GROUP,
        threads=speeds.threads, spread=speeds.spread,
        **{name: about.get(name) for name in ("cpu", "tier", "commit")},
    )  # fmt: skip
    return page.write(target, "encodings.md.jinja", values)


def _table(losses: Losses, speeds: Speeds) -> Table:
    def speed(value: Callable[[Product], float | None], form: str) -> Callable[[Entry], Cell]:
        def cell(entry: Entry) -> Cell:
            product = speeds.find(entry)
            return number(product and value(product), form)

        return cell

    def above(entry: Entry) -> Cell:
        found = losses.of(entry)
        return number(found and found / losses.floats - 1, "{:+.1%}")

    columns: dict[str, Callable[[Entry], Cell]] = {
        "weights": lambda each: text(each.weights),
        "`ternops.quantize(w, ...)`": lambda each: text(each.call),
        "bits": lambda each: number(each.bits(), "{:.2f}"),
        "perplexity": lambda each: number(losses.of(each), "{:.3f}"),
        "above float16": above,
        "GB/s": speed(lambda each: speeds.rate(each) * each.bytes / each.macs / 1e9, "{:.1f}"),
        "of the bandwidth": speed(speeds.share, "{:.0%}"),
        "10^9 weights/s": speed(lambda each: speeds.rate(each) / 1e9, "{:.1f}"),
        "from": lambda each: text(each.source),
    }
    return table("encodings", "Encodings", columns, list(ENTRIES))


main = partial(
    on_results, "bench.encodings",
    "Write docs/ENCODINGS.md: what each encoding takes, loses and reaches.", KERNELS_FILE,
    lambda folder: [write(folder)],
)  # fmt: skip
