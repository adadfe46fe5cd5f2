"""Every job of this process's tier, what takes longest to compile first."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from ternops.simd import Job

if TYPE_CHECKING:
    from ternops.kernels.tiles import Choice

Jobs = dict[str, Job]


def needed(encodings: Iterable[str], decoder: bool, plain: bool = False) -> Jobs:
    """What products of some encodings run, with any number of tokens; key -> job.

    decoder: and models, with any head and cache. plain: and of models only those of BitNet's kind:
    one scale a matrix, full attention, and 16 bits of heads and caches.
    """
    from ternops import team
    from ternops.decoder.attention import CACHES
    from ternops.decoder.delta import delta_inputs, delta_rule
    from ternops.decoder.forward import forward
    from ternops.encodings import ENCODINGS, PANELS
    from ternops.encodings.blocks import Blocks
    from ternops.kernels.grouped_row import grouped_row
    from ternops.kernels.largest import largest_bf16
    from ternops.kernels.linear import linear
    from ternops.kernels.over_rows import over_rows
    from ternops.kernels.packing import pack
    from ternops.kernels.plan import KERNELS, UNPACKED, grouped_kernels
    from ternops.kernels.row_hash import row_hashes
    from ternops.kernels.screen import quantize_head
    from ternops.kernels.sparse import sparse_kernels
    from ternops.kernels.stacked import gemv_stack
    from ternops.kernels.tiles import KINDS
    from ternops.kernels.transpose import transpose_job
    from ternops.kernels.turning import turn
    from ternops.kernels.unpacking import unpack

    chosen = set(encodings)
    blocks = {name for name, encoding in ENCODINGS.items() if isinstance(encoding, Blocks)}
    found: list[Job] = []
    if decoder:
        caches = [CACHES["fp16"]] if plain else CACHES.values()
        heads = [UNPACKED[name] for name in ("fp16", "bf16")] if plain else UNPACKED.values()
        found += [job for _, append, attend in caches for job in (attend, append)]
        found += [job for each in heads for job in (each.multiply, each.prepare)]
        found.append(forward)
        if not plain:
            found += [delta_inputs, delta_rule, quantize_head, gemv_stack, largest_bf16, row_hashes]
            found += [grouped_row(name) for name in sorted(chosen & blocks)]
    for name in sorted(chosen & blocks):
        found += (*sparse_kernels(name), transpose_job(name))
    for (encoding, _), kernels in KERNELS.items():
        if encoding in chosen:
            found += reversed(kernels)
    found += [pack, *team.ENTRIES]
    if not plain:
        found += [linear, over_rows, unpack, turn]
        # Those for other groups, which few matrices have, are compiled when they are asked for.
        for name, kind in product(sorted(chosen & set(PANELS)), KINDS):
            for group in PANELS[name].usual_groups:
                found += reversed(grouped_kernels(name, kind, group)[:2])
    return {job.key: job for job in found}


def every() -> Jobs:
    """All of the package: those of every encoding, of models and of the cost model's trials, with
    the tiles of every family of CPUs."""
    from ternops.cost import probes, trials
    from ternops.encodings import ENCODINGS, PANELS
    from ternops.isa import TIER
    from ternops.isa.tier import FAMILIES
    from ternops.kernels.fp16 import KINDS as FLOATS
    from ternops.kernels.fp16 import gemv_for
    from ternops.kernels.grouped import MAX_UNIT, grouped_gemv
    from ternops.kernels.int8 import gemv_i8_for
    from ternops.kernels.plan import tiled
    from ternops.kernels.tiles import default_tiles

    jobs = needed(ENCODINGS, decoder=True)
    tuned = [tiled(each.encoding, each.tile).multiply for each in default_tiles(TIER)]
    heads = [gemv_i8_for(family) for family in FAMILIES]
    heads += [gemv_for(name, family) for name in FLOATS for family in FAMILIES]
    grouped = [
        grouped_gemv(name, min(group, MAX_UNIT), family=family)
        for name, panels in PANELS.items()
        for group in panels.usual_groups for family in FAMILIES
    ]  # fmt: skip
    others = [each for each in vars(trials).values() if isinstance(each, Job)]
    for job in (*tuned, *heads, *grouped, *probes.READS.values(), *others):
        jobs.setdefault(job.key, job)
    return jobs


def candidate(key: str) -> Job:
    """The job of one of the tiles that tuning tries; KeyError if there is none of that key."""
    from ternops.kernels.plan import tiled

    found = _candidates()[key.rpartition(".")[2]]
    return tiled(found.encoding, found.tile).multiply


@cache
def _candidates() -> dict[str, Choice]:
    """By the names of their kernels."""
    from ternops.encodings import ENCODINGS
    from ternops.isa import TIER
    from ternops.kernels.tiles import Choice, candidates, kernel_name, kinds_of

    return {
        kernel_name(encoding, tile, TIER): Choice(name, kind, tile)
        for name, encoding in ENCODINGS.items()
        for kind in kinds_of(encoding)
        for tile in candidates(name, kind, TIER)
    }
