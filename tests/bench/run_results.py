"""Made-up results of a run, written as bench.run writes them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

from bench.core.results import CYCLED, FP16, MEASURED, MODELLED, Probe, Results, Row, save
from ternops.cost.layouts import SIZES

ENCODINGS = {"base3": 1.6, "two_bit": 2.0, "tl1": 2.0, "tl2": 1.67}  # bits a weight
PEERS = {"llama.cpp F16": 16.0, "llama.cpp TQ1_0": 1.69, "llama.cpp TQ2_0": 2.06,
         "llama.cpp Q4_0": 4.5}  # fmt: skip
BANDWIDTH = 21e9  # bytes a second and thread
#: Of these fp16 weights do not fit; of the last of them the packed ones do not, either.
LARGE, LARGEST = ("30B", "70B", "100B"), ("100B",)
WITH_PEERS = ("700M", "2B4T", "3B")
ALL_SIZES = tuple(sorted(SIZES, key=lambda size: SIZES[size].linear_weights))
ABOUT = {
    "ternops": "0.1.0",
    "commit": "0123456789ab-dirty",
    "command": "python -m bench.run --arch auto",
    "arch": "x86",
    "cpu": "AMD EPYC 9B45 128-Core Processor",
    "tier": "avx512vbmi",
    "memory": 32 << 30,
    "versions": "Python 3.11.2, NumPy 2.4.0, Numba 0.68.1, Linux 6.1",
    "left_out": ["70B llama.cpp F16: needs 275.4 GB beside ours", "100B: <not> & measured"],
    "limits": [
        {"what": "DRAM", "threads": 1, "rate": 21.04, "unit": "GB/s", "how": "4 streams of 64"},
        {"what": "DRAM", "threads": 2, "rate": 42.1, "unit": "GB/s", "how": "8 streams of 64"},
        {"what": "barrier", "threads": 2, "rate": 0.21, "unit": "us", "how": "spinning"},
    ],
    "lossless": {
        "lossless": True, "tokens_against_numpy": 64, "tokens": 512,
        "perplexity_float64": {"ternary": 16.68, "fp16": 16.7},
        "table": [
            {"tier": tier, "encoding": encoding, "bit_identical": {"1": True, "2": True},
             "perplexity": 16.685862, "agreement": 0.998}
            for tier in ("avx512vbmi", "avx2", "generic")
            for encoding in ("base3", "two_bit", "fp16")
        ],
    },
    "products": [
        {"shape": [2048, 6912], "tokens": 1, "engine": "base3", "seconds": 2e-4, "spread": 0.02,
         "version": "", "remark": ""},
        {"shape": [2048, 6912], "tokens": 1, "engine": "NumPy float32", "seconds": 3e-3,
         "spread": 0.2, "version": "2.4.0", "remark": "OpenBLAS"},
    ],
}  # fmt: skip


def made_up(
    sizes: Sequence[str] = ALL_SIZES, threads: Sequence[int] = (1, 2), peers: bool = True,
    joules: bool = True,
) -> Results:  # fmt: skip
    """Results like those of a real run: the same every time."""
    results = Results(dict(ABOUT))
    for size, count in itertools.product(sizes, threads):
        bits = {FP16: 16.0, **ENCODINGS}
        if peers and size in WITH_PEERS:
            bits |= PEERS
        for engine, each in bits.items():
            results.rows.append(_decode_row(size, engine, each, count, joules))
            if size in WITH_PEERS and (engine != FP16 or size == "700M"):
                results.rows.append(_prompt_row(size, engine, count))
    for count in threads:
        metadata = {"name": f"read 512 MiB, {count} thread(s)", "ternops_probe": "4 streams",
                    "ternops_threads": count, "ternops_bytes": 512 << 20}  # fmt: skip
        results.probes.append(Probe(metadata, (0.0256 / count,) * 3))
    return results


def written(folder: Path, results: Results) -> Path:
    """The folder, with the results in it."""
    save(folder, results)
    return folder


def _decode_row(size: str, engine: str, bits: float, threads: int, joules: bool) -> Row:
    config = SIZES[size]
    read = int(config.linear_weights * bits / 8) + 2 * config.vocabulary * config.hidden
    limit = BANDWIDTH * threads / read
    kind = MEASURED
    if size in LARGE and engine == FP16:
        kind = MODELLED
    elif size in LARGEST:
        kind = CYCLED
    seconds: tuple[float, ...] = (1 / limit,)
    if kind != MODELLED:
        share = 0.55 if engine in PEERS else 0.93 - 0.01 * len(engine)
        # One row is noisier than is good.
        wide = 0.3 if (size, engine, threads) == ("350M", "tl1", 2) else 0.01
        seconds = tuple(
            (1 + wide * math.sin(7 * i + len(engine))) / (limit * share) for i in range(9)
        )
    has_energy = joules and engine not in PEERS
    energy = ("measured" if threads == 2 and size == "700M" else "modelled") if has_energy else ""
    return Row(
        size, engine, "tg32", threads, kind, seconds, read, limit, "read bandwidth",
        read * 2.4e-10 if has_energy else math.nan, energy,
        "llama-cpp-python 0.3.16 (AVX512)" if engine in PEERS else "",
        "" if kind == MODELLED else f"{size}/0",
    )  # fmt: skip


def _prompt_row(size: str, engine: str, threads: int) -> Row:
    rate = (120e9 if engine in PEERS else 700e9) * threads / SIZES[size].linear_weights
    seconds = tuple((1 + 0.02 * math.sin(5 * i)) / rate for i in range(5))
    floats = engine in (FP16, "llama.cpp F16")
    return Row(
        size, engine, "pp512", threads, MEASURED, seconds,
        limit=rate * 1.6, limited_by=f"{'multiply-add' if floats else 'dot'} instruction",
        version="llama-cpp-python 0.3.16 (AVX512)" if engine in PEERS else "", group=f"{size}/0",
    )  # fmt: skip


def damage(path: Path, way: Sequence[str | int], value: object) -> None:
    """Put a value where the keys of `way` lead to in a JSON file."""
    found = table = json.loads(path.read_text())
    *to, last = way
    for each in to:
        table = table[each]
    table[last] = value
    path.write_text(json.dumps(found))
