"""The rows of a run of bench.run: what they say, and how they lie in a pyperf suite.

decode.json has a benchmark for each row, with seconds a token as values and all else as metadata,
and one for each probe of the memory; run.json says how it was made and what was left out. Tables,
pictures and the report are made from these two alone.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyperf

from bench.core.envelope import save_json
from bench.core.errors import ResultsError
from bench.core.measure import Spread, relative_spread, speedup
from bench.core.pyperf_files import PREFIX, fields_of, metadata_of, save_benchmarks
from ternops.cost.layouts import GROUP, LAYOUTS, WITH_GROUPS
from ternops.encodings import ENCODINGS, PANELS, TERNARY
from ternops.encodings.row_groups import RowGroups

#: Of the two files; others are not read.
FORMAT = 2
ROWS_FILE, RUN_FILE = "decode.json", "run.json"
#: Of bench.kernels, and of bench.decode.
KERNELS_FILE, DECODER_FILE = "kernels.json", "decoder.json"
SCALING_FILE, SCALING_FORMAT = "scaling.json", 1
FP16 = "fp16"
#: This library by the weights of its decoder; fp16 is what every other engine is compared with.
ENGINES = (FP16, *TERNARY)
#: The encodings that are multiplied by look-ups.
LOOK_UPS = tuple(name for name, each in ENCODINGS.items() if isinstance(each, RowGroups))
#: Engine -> the type of its linear layers in a GGUF file.
LLAMA = {f"llama.cpp {kind.upper()}": kind for kind in ("f16", "tq1_0", "tq2_0", "q4_0")}
#: How a row came about: timed whole; timed with fewer distinct layers than the model has, used in
#: turn; or computed from measured limits.
MEASURED, CYCLED, MODELLED = KINDS = ("measured", "cycled", "modelled")
#: What is done, by whether tokens are generated.
TITLES = {True: "Generating tokens (tg)", False: "Reading a prompt (pp)"}
#: A row whose values spread more is marked.
MAX_SPREAD = 0.1

Record = TypeVar("Record")


@dataclass(frozen=True)
class Row:
    """One engine at one size, test and thread count.

    test: as llama-bench names it, "tg32" generates 32 tokens and "pp512" reads a prompt of 512.
    seconds: a token, a value for each round; rows of a group have them in the same order.
    bytes_per_token: read of memory, tg. limit: tokens/s that `limited_by` allows, 0 if unknown.
    joules: a token, NaN if unknown; energy: "measured" or "modelled", or empty. group: rows with
    the same one took turns.
    """

    size: str
    engine: str
    test: str
    threads: int
    kind: str
    seconds: tuple[float, ...]
    bytes_per_token: int = 0
    limit: float = 0.0
    limited_by: str = ""
    joules: float = math.nan
    energy: str = ""
    version: str = ""
    group: str = ""

    @property
    def speed(self) -> float:
        """Tokens a second, the median."""
        return 1 / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        return relative_spread(self.seconds)

    @property
    def share(self) -> float:
        """Of the limit; NaN if that is unknown."""
        return self.speed / self.limit if self.limit else math.nan

    @property
    def is_decode(self) -> bool:
        """Whether tokens are generated, one after another."""
        return self.test.startswith("tg")

    def over(self, base: Row) -> Spread:
        """How many times faster than `base`: by pairs where both were timed in turn."""
        if self.group and self.group == base.group and len(self.seconds) == len(base.seconds):
            return speedup(base.seconds, self.seconds)
        ratio = self.speed / base.speed
        return Spread(ratio, ratio, ratio)

    def fewer_bytes(self, base: Row) -> float:
        """How many times fewer bytes a token it reads than `base`; NaN if that is unknown."""
        if not self.bytes_per_token or not base.bytes_per_token:
            return math.nan
        return base.bytes_per_token / self.bytes_per_token

    @property
    def metadata(self) -> dict[str, Any]:
        return metadata_of(self, "seconds")

    @property
    def name(self) -> str:
        """What it is called in a pyperf suite."""
        return f"{self.test} {self.size} {self.engine}, {self.threads} thread(s)"


def row_of(metadata: Mapping[str, Any], seconds: Iterable[float], name: str) -> Row:
    """The row of a benchmark; ResultsError for one that has no sensible fields."""
    row = Row(seconds=tuple(seconds), **fields_of(Row, metadata, name, "seconds"))
    if row.kind not in KINDS:
        raise ResultsError(f"benchmark {name!r} is {row.kind!r}, expected {', '.join(KINDS)}")
    if not row.seconds or not all(0 < each < math.inf for each in row.seconds):
        raise ResultsError(f"benchmark {name!r} has no usable values")
    for each, least in (("threads", 1), ("bytes_per_token", 0), ("limit", 0)):
        if not least <= getattr(row, each) < math.inf:
            raise ResultsError(f"benchmark {name!r} has {PREFIX}{each} {getattr(row, each)}")
    return row


@dataclass(frozen=True)
class Probe:
    """One way to read memory.

    metadata: as pyperf keeps it, with "name", "ternops_probe", "ternops_bytes" and
    "ternops_threads". seconds: of reading all of it.
    """

    metadata: dict[str, Any]
    seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return float(self.metadata["ternops_bytes"] / statistics.median(self.seconds))


@dataclass
class Results:
    """One run on one machine.

    about: run.json as it is: the envelope (`bench.about`), "command", "arch", "left_out" (lines),
    and what else was found out ("lossless", "products").
    """

    about: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)

    @property
    def sizes(self) -> list[str]:
        """From small to large, 2B4T between 1.5B and 2.7B."""
        return sorted({row.size for row in self.rows}, key=lambda s: (parameters(s), s))

    @property
    def arch(self) -> str:
        return str(self.about.get("arch"))

    @property
    def threads(self) -> list[int]:
        return sorted({row.threads for row in self.rows})

    @property
    def engines(self) -> list[str]:
        """In the order of the file, fp16 first."""
        return sorted(dict.fromkeys(row.engine for row in self.rows), key=lambda e: e != FP16)

    def find(self, **wanted: Any) -> list[Row]:
        """The rows with these values of fields, in order."""
        return having(self.rows, **wanted)

    def base_of(self, row: Row) -> Row | None:
        """The fp16 row that a row is compared with."""
        found = self.find(size=row.size, engine=FP16, test=row.test, threads=row.threads)
        return found[0] if found and found[0] is not row else None


def having(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records with these values of fields, in order."""
    return [
        each for each in records if all(getattr(each, k) == v for k, v in wanted.items())
    ]  # fmt: skip


def group_of(size: str, engine: str) -> int:
    """Columns that share a scale, 0 for all of a matrix."""
    return GROUP if size in WITH_GROUPS and engine != FP16 else 0


def linear_bytes(size: str, engine: str) -> int:
    """Bytes of an engine's linear layers, all of them distinct."""
    config, group = LAYOUTS[size], group_of(size, engine)
    if group:
        return sum(
            _grouped_bytes(*shape, engine, group)
            for layer in range(config.layers)
            for shape in config.linear_shapes(layer).values()
        )
    weights = config.linear_weights
    return weights * 2 if engine == FP16 else ENCODINGS[engine].nbytes(1, weights)


def head_bytes(size: str, engine: str = FP16) -> int:
    """Bytes of a head, and of an embedding: fp16, or ternary where all of a layout is."""
    shape, group = (LAYOUTS[size].vocabulary, LAYOUTS[size].hidden), group_of(size, engine)
    return _grouped_bytes(*shape, engine, group) if group else 2 * math.prod(shape)


def _grouped_bytes(rows: int, columns: int, engine: str, group: int) -> int:
    """With a float16 scale a group."""
    return PANELS[engine].nbytes(rows, columns) + 2 * rows * (columns // group)


def plural(count: int, what: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def parameters(size: str) -> float:
    """The number of parameters in a name such as "350M", "2B4T" or "Qwen3 8B", infinity without
    one."""
    match = re.search(r"(?<!\w)(\d+(?:\.\d+)?)([MB])", size)
    return float(match[1]) * {"M": 1e6, "B": 1e9}[match[2]] if match else math.inf


def load(folder: Path) -> Results:
    """The results in a folder.

    Raises ResultsError for other files and for another version; OSError for what cannot be read.
    """
    try:
        about = json.loads((folder / RUN_FILE).read_text("utf-8"))
        rows = folder / ROWS_FILE
        suite = pyperf.BenchmarkSuite.load(str(rows)) if rows.exists() else ()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError(f"{folder}: {ROWS_FILE} or {RUN_FILE} is not complete") from error
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        words = f"format {found!r}, expected {FORMAT}: measure it again"
        raise ResultsError(f"{folder / RUN_FILE}: {words}")
    results, seen = Results(about), set()
    for benchmark in suite:
        metadata, name = benchmark.get_metadata(), benchmark.get_name()
        seconds = benchmark.get_values()
        if PREFIX + "probe" in metadata:
            size = metadata.get(PREFIX + "bytes")
            if not isinstance(size, int) or size < 1 or min(seconds) <= 0:
                raise ResultsError(f"probe {name!r} has no usable bytes or values")
            results.probes.append(Probe(metadata, seconds))
        elif PREFIX + "size" in metadata:
            if name in seen:
                raise ResultsError(f"{folder / ROWS_FILE}: {name!r} is there twice")
            seen.add(name)
            results.rows.append(row_of(metadata, seconds, name))
    return results


def save(folder: Path, results: Results) -> None:
    """Write run.json and decode.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = [(row.seconds, {**row.metadata, "name": row.name}) for row in results.rows]
    measured += [(probe.seconds, probe.metadata) for probe in results.probes]
    if results.rows:
        benchmarks = [
            pyperf.Benchmark([pyperf.Run(
                seconds, metadata={"unit": "second", **metadata}, collect_metadata=False
            )])
            for seconds, metadata in measured
        ]  # fmt: skip
        save_benchmarks(folder / ROWS_FILE, benchmarks, results.about)
    else:  # an earlier run's do not belong to this one
        (folder / ROWS_FILE).unlink(missing_ok=True)
    save_json(folder / RUN_FILE, {"format": FORMAT, **results.about})
