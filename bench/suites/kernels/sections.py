"""The sections of bench.kernels: which cases each of them times, in groups that take turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import ternops
from bench.core.envelope import TIER
from bench.core.kernels import load_cases
from bench.core.measure import Case
from bench.core.results import LOOK_UPS
from bench.engines import Engine
from bench.limits import levels
from bench.limits.peaks import PEAKS
from bench.suites.kernels import cases as make
from ternops.encodings import ENCODINGS as REGISTRY
from ternops.encodings.panels import Panels
from ternops.isa import HAS_TILES, detect

#: Encodings that are compared without a scale a group of columns, and those of blocks.
ENCODINGS = tuple(name for name, each in REGISTRY.items() if not isinstance(each, Panels))
BLOCKS = tuple(each for each in ENCODINGS if each not in LOOK_UPS)
#: What is compared with AMX, and what stands for CPUs without AVX-512.
VNNI, AVX2 = "avx512vbmi", "avx2"

#: An encoding, columns that share a scale (0: all), and levels, if they are not its values.
Kind = tuple[str, int] | tuple[str, int, tuple[int, ...]]
#: What is compared in the section of those with a scale a group of columns.
GROUPED: tuple[Kind, ...] = (
    ("two_bit", 0), ("two_bit", 128), ("two_bit", 64), ("base3", 0), ("base3", 128)
)  # fmt: skip
#: Encodings of one to eight bits, with the same groups, in the order of their bits; and floats.
LEVELS: tuple[Kind, ...] = (
    ("one_bit", 128), ("base3", 128), ("two_bit", 128), ("two_bit", 128, (-3, -1, 1, 3)),
    ("three_bit", 128), ("nibble", 128), ("eight_bit", 128),
    ("e4m3", 0), ("e5m2", 0),
)  # fmt: skip

_CACHE_COLUMNS, _DRAM_COLUMNS = 2560, 4096
_GEMM = 4096
#: Seconds of a turn of the GEMM: caches and the clock are then as its own products leave them, and
#: not as what was measured before them does.
_GEMM_TURN = 0.03
#: Rows and columns, and tokens, of the products beside peers.
_PEERS: tuple[tuple[int, ...], tuple[int, ...]] = (2048, 4096), (1, 8, 128, 512)
_PEERS_QUICK: tuple[tuple[int, ...], tuple[int, ...]] = (2048,), (1, 128)
#: Bytes for all that is small.
_SPARE = 1 << 28
#: (tokens, columns, rows) of the table that bitnet.cpp and litespark publish.
_PUBLISHED = (
    *((tokens, 2048, 2048) for tokens in (1, 32, 128, 256, 512, 2048)),
    (128, 2048, 8192), (128, 8192, 2048),
)  # fmt: skip


@dataclass
class KernelOptions:
    """What to measure. notes: what could not be measured, in words; failures: what went wrong."""

    threads: list[int]
    quick: bool = False
    engines: list[Engine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def rounds(self, full: int) -> int:
        """The number of rounds; full: of a run that is not quick."""
        return max(3, full // 3) if self.quick else full


class Group(NamedTuple):
    """Cases that take turns, made when it is their turn to be measured.

    rounds: 0 if they were measured elsewhere when they are made; memory: bytes that they take.
    """

    name: str
    rounds: int
    build: Callable[[], list[Case]]
    memory: int


def limits(options: KernelOptions) -> list[Group]:
    """What the machine can do."""
    groups = []
    for threads in options.threads:
        for level in levels.ALL:
            name = f"limits, {level or 'instructions'}"
            read = 2 * (levels.level_bytes(level, threads) or 0) if level else 0
            built = partial(levels.all_limits, "limits", name, level, threads)
            groups.append(Group(name, options.rounds(15), built, read + _SPARE))
    return groups


def gemv_dram(options: KernelOptions) -> list[Group]:
    """One token, weights from memory."""
    return _from_dram("gemv-dram", "GEMV from DRAM", ENCODINGS, (1,), options, 15)


def gemv_cache(options: KernelOptions) -> list[Group]:
    """One token, weights in the second-level cache of the one thread."""
    name, section = "GEMV in L2", "gemv-cache"

    def build() -> list[Case]:
        x = make.tokens_of(1, _CACHE_COLUMNS, "int8")
        size = levels.level_bytes(levels.L2, 1) or 0
        cases = []
        for encoding in BLOCKS:
            matrix = make.weights_of(encoding, _CACHE_COLUMNS, size)
            cases.append(make.kernel_case(section, name, matrix, x, 1, alone=True))
        cases += levels.peak_limits(section, name, 1)
        return cases + levels.read_limits(section, name, levels.L2, 1)

    return [Group(name, options.rounds(21), build, _SPARE)]


def batch(options: KernelOptions) -> list[Group]:
    """Eight tokens and one, weights from memory."""
    return _from_dram("batch", "batch from DRAM", BLOCKS, (1, 8), options, 9)


def _from_dram(
    section: str, name: str, encodings: Sequence[str], counts: Sequence[int],
    options: KernelOptions, rounds: int,
) -> list[Group]:  # fmt: skip
    """A group for each number of threads: every encoding with each count of tokens."""

    def build(threads: int) -> list[Case]:
        cases = []
        for encoding in encodings:
            matrix = make.weights_of(encoding, _DRAM_COLUMNS, levels.DRAM_BYTES)
            for tokens in counts:
                x = make.tokens_of(tokens, _DRAM_COLUMNS)
                cases.append(make.matmul_case(section, name, matrix, x, threads, levels.DRAM))
        cases += levels.peak_limits(section, name, threads)
        return cases + levels.read_limits(section, name, levels.DRAM, threads)

    memory = (len(encodings) + 2) * levels.DRAM_BYTES + _SPARE
    return [Group(name, options.rounds(rounds), partial(build, n), memory) for n in options.threads]


def gemm(options: KernelOptions) -> list[Group]:
    """512 tokens; beside AMX the same without it, in another process."""
    name, section = "GEMM", "gemm"
    # Tiles first, right behind products: these leave a core at a lower clock than it has by itself.
    peaks = sorted(PEAKS, key=lambda peak: peak.what != "tile")

    def build(threads: int) -> list[Case]:
        cases = []
        for encoding in ENCODINGS:
            matrix = make.weights(encoding, _GEMM, _GEMM)
            for dtype in ("int8", "float32"):
                x = make.tokens_of(512, _GEMM, dtype)
                cases.append(
                    make.matmul_case(section, name, matrix, x, threads, seconds=_GEMM_TURN)
                )
            # Of float32 only: what int8 tokens change is the preparation.
            cases += make.gemm_part_cases(section, name, matrix, x, threads, _GEMM_TURN)
        return cases + levels.peak_limits(section, name, threads, peaks)

    groups = [Group(name, options.rounds(9), partial(build, n), _SPARE) for n in options.threads]
    if HAS_TILES:
        groups.append(Group(VNNI, 0, partial(_in_tier, options, VNNI, section), _SPARE))
    return groups


def grouped(options: KernelOptions) -> list[Group]:
    """With a scale a group of columns, beside the same without."""
    return _kinds("grouped", GROUPED, options)


def low_bit(options: KernelOptions) -> list[Group]:
    """Every number of bits, and of levels, with the same groups."""
    return _kinds("low-bit", LEVELS, options)


def _kinds(section: str, kinds: Sequence[Kind], options: KernelOptions) -> list[Group]:
    """One token, weights from memory, and 512 tokens."""
    gemv, gemm_name = f"{section} GEMV", f"{section} GEMM"

    def one(threads: int) -> list[Case]:
        x, columns = make.tokens_of(1, _DRAM_COLUMNS), _DRAM_COLUMNS
        return [
            make.matmul_case(
                section, gemv,
                make.any_weights(each, make.rows_of(each, columns, size), columns, *kind),
                x, threads, levels.DRAM,
            )
            for each, *kind in kinds
        ] + levels.read_limits(section, gemv, levels.DRAM, threads)  # fmt: skip

    def many(threads: int) -> list[Case]:
        x = make.tokens_of(512, _GEMM)
        return [
            make.matmul_case(
                section, gemm_name, make.any_weights(each, _GEMM, _GEMM, *kind), x, threads,
                seconds=_GEMM_TURN,
            )
            for each, *kind in kinds
        ]  # fmt: skip

    # Several are made at once: each as large as half of what else comes from memory.
    size = levels.DRAM_BYTES // 2
    memory = (len(kinds) + 2) * size + _SPARE
    return [
        *(Group(gemv, options.rounds(15), partial(one, n), memory) for n in options.threads),
        *(Group(gemm_name, options.rounds(9), partial(many, n), _SPARE) for n in options.threads),
    ]


def avx2(options: KernelOptions) -> list[Group]:
    """One token, weights from memory, as on a CPU that has no more than AVX2."""
    if AVX2 not in [tier.name for tier in detect.available()] or TIER == AVX2:
        return []
    # The other process looks for itself whether there is memory enough.
    return [Group(AVX2, 0, partial(_in_tier, options, AVX2, "gemv-dram"), _SPARE)]


def peers(options: KernelOptions) -> list[Group]:
    """Square matrices, beside every engine."""
    sizes, tokens = _PEERS_QUICK if options.quick else _PEERS
    return [
        _beside("peers", options, options.engines, shape, threads, 7)
        for shape in ((m, n, n) for n in sizes for m in tokens)
        for threads in options.threads
    ]


def published(options: KernelOptions) -> list[Group]:
    """The table of others, beside those of them that run here."""
    engines = [each for each in options.engines if each.name.startswith("litespark")]
    shapes = [each for each in _PUBLISHED if not options.quick or each in _PUBLISHED[:5:2]]
    return [_beside("published", options, engines, shape, 1, 12) for shape in shapes]


def overhead(options: KernelOptions) -> list[Group]:
    """A small product through Python, and its kernels alone."""
    name, section = "overhead", "overhead"

    def build() -> list[Case]:
        matrix = make.weights("two_bit", 2048, 2048)
        cases = []
        for dtype in ("float32", "int8"):
            x = make.tokens_of(1, 2048, dtype)
            cases.append(make.matmul_case(section, name, matrix, x, 1))
            cases.append(make.kernel_case(section, name, matrix, x, 1, alone=False))
        return cases

    return [Group(name, options.rounds(31), build, _SPARE)]


#: By name, in the order in which they are measured.
SECTIONS: dict[str, Callable[[KernelOptions], list[Group]]] = {
    "limits": limits,
    "gemv-dram": gemv_dram,
    "gemv-cache": gemv_cache,
    "batch": batch,
    "gemm": gemm,
    "grouped": grouped,
    "low-bit": low_bit,
    "peers": peers,
    "published": published,
    "avx2": avx2,
    "overhead": overhead,
}


def _beside(
    section: str, options: KernelOptions, engines: list[Engine], shape: tuple[int, int, int],
    threads: int, rounds: int,
) -> Group:  # fmt: skip
    tokens, columns, rows = shape
    name = f"{section} [{tokens}, {columns}] x [{columns}, {rows}]"

    def build() -> list[Case]:
        trits = np.random.default_rng(0).integers(-1, 2, (rows, columns), np.int8)
        x = make.tokens_of(tokens, columns)
        matrix = ternops.pack(trits)
        cases = [make.matmul_case(section, name, matrix, x, threads, beside_peers=bool(engines))]
        # Right after ours, because the same threads measure them.
        cases += levels.peak_limits(section, name, threads)
        if tokens <= make.MAX_READ:
            level = levels.level_of(matrix.nbytes, threads)
            cases += levels.read_limits(section, name, level, threads)
        cases += make.peer_cases(section, name, engines, trits, x, threads, options.notes)
        return cases

    dense = (len(engines) + 2) * 4 * columns * rows
    return Group(name, options.rounds(rounds), build, dense + _SPARE)


def _in_tier(options: KernelOptions, tier: str, section: str) -> list[Case]:
    """What a process of another tier measures of a section, under names that say so."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--only", section, "--output", folder, "--no-peers", "--threads"]
        arguments += [str(each) for each in options.threads] + ["--quick"] * options.quick
        done = subprocess.run(
            [sys.executable, "-m", "bench.kernels", *arguments],
            env={**os.environ, "TERNOPS_ISA": tier}, cwd=Path(__file__).parents[3],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            cases = load_cases(Path(folder) / "kernels.json")
        except (OSError, ValueError) as error:
            last = (done.stderr.strip().splitlines() or [str(error)])[-1]
            options.failures.append(f"{section} with TERNOPS_ISA={tier}: {last}")
            return []
    for case in cases:
        case.name += f", {tier}"
    return cases
