"""What one of several ranks has of a model and of a machine: its part of a pass, counted from it.

With tensor parallelism every matrix is shared out by rows, in whole UNITs, and attention by heads,
with the keys and values that these need; norms, and the activations that a product is prepared
from, are every rank's own. With pipelining a rank has some layers, and the last one the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ternops.cost.hardware import Cores, Curve, Fixed, Hardware, Kernel, Level
from ternops.cost.workload import (
    ATTENTION,
    FP16,
    Part,
    Workload,
    linear_bytes,
    weight_bytes,
    workload,
)
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.config import Config
from ternops.ranks.split import UNIT, Layout

#: Vectors that the ranks of a layer gather: of attention, its output's projection, the gated
#: inner vector and the residual's second part.
GATHERS = 4


@dataclass(frozen=True)
class Stage:
    """The largest rank of a stage. work: of a pass. weights: bytes that it holds. cache: bytes of
    keys and values of all sequences. layers: how many; is_last: whether it has the head."""

    work: Workload
    weights: int
    cache: int
    layers: int
    is_last: bool


def check_layout(config: Config, layout: Layout) -> None:
    """ValueError for more stages than layers, or more ranks than any matrix can be shared among."""
    if layout.pp > config.layers:
        raise ValueError(f"pp={layout.pp}: expected at most {config.layers}, the model's layers")
    units = _ceil(max(config.hidden, config.ffn, config.vocabulary), UNIT)
    if layout.tp > units:
        raise ValueError(
            f"tp={layout.tp}: expected at most {units}, the {UNIT}s of rows of the largest matrix"
        )


def stages(
    config: Config, kind: str, layout: Layout, context: int, tokens: int, sequences: int
) -> list[Stage]:
    """Each stage of a layout. tokens: sequences that are in a pass together, of `sequences`."""
    whole = workload(config, kind, "decode", context, tokens)
    head = linear_bytes(FP16, config.vocabulary, config.hidden)
    # The embedding, of which a token needs a row, stays in the file.
    per_layer = (weight_bytes(config, kind) - head * (1 if config.tied else 2)) // config.layers
    cache = sequences * kv_cache_bytes(config, FP16, context + 1) * _keys(config, layout.tp)
    found = []
    for layers, is_last in zip(_layers(config.layers, per_layer, head, layout.pp),
                               [False] * (layout.pp - 1) + [True], strict=True):  # fmt: skip
        part = layers / config.layers
        work = Workload(
            tuple(
                _share(config, each, kind, layout.tp, part)
                for each in whole.parts if is_last or each.name != "head"
            ), whole.tokens, whole.passes,
        )  # fmt: skip
        weights = sum(each.bytes for each in work.parts if each.kernel != ATTENTION)
        found.append(Stage(work, weights, round(cache * part), layers, is_last))
    return found


def _layers(layers: int, per_layer: int, head: int, pp: int) -> list[int]:
    """Of each stage, alike in bytes with the head in the last one, at least one each."""
    share = (layers * per_layer + head) / pp / per_layer
    ends = [min(round(stage * share), layers) for stage in range(1, pp)] + [layers]
    ends = [max(end, stage) for stage, end in enumerate(ends, 1)]
    ends = [min(end, layers - (pp - stage)) for stage, end in enumerate(ends, 1)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _share(config: Config, part: Part, kind: str, tp: int, layers: float) -> Part:
    """A part of a pass as its largest rank has it."""
    if part.name == "head":
        share = _units(config.vocabulary, tp) / config.vocabulary
        return _times(part, share, share, share)
    if part.kernel == ATTENTION:
        heads = _ceil(config.heads, tp) / config.heads
        return _times(part, heads * layers, _keys(config, tp) * layers, 0.0, heads, layers)
    if part.name == "norms":
        return _times(part, layers, layers, 0.0, layers, layers)
    is_ffn = part.name == "FFN"
    shapes = {
        name: shape
        for name, shape in config.linear_shapes().items()
        if (name in ("gate", "up", "down")) == is_ffn
    }
    rows = {name: _rows(config, name, count, tp) for name, (count, _) in shapes.items()}
    bytes_of = {
        name: linear_bytes(kind, rows[name], columns) / linear_bytes(kind, count, columns)
        * (count * columns)
        for name, (count, columns) in shapes.items()
    }  # fmt: skip
    every = sum(count * columns for count, columns in shapes.values())
    macs = sum(rows[name] * columns for name, (_, columns) in shapes.items()) / every
    several = sum(rows.values()) / sum(count for count, _ in shapes.values())
    read = sum(bytes_of.values()) / every
    found = _times(part, macs * layers, read * layers, several * layers, layers, layers)
    # A barrier more behind each gathered vector.
    gathers = GATHERS // 2 * round(layers * config.layers) * (tp > 1)
    return replace(found, barriers=found.barriers + gathers)


def _times(
    part: Part, macs: float, read: float, rows: float, others: float = 1.0, layers: float = 1.0
) -> Part:
    """others: of what is prepared, barriers and heads."""
    return replace(
        part, macs=round(part.macs * macs), bytes=round(part.bytes * read),
        rows=round(part.rows * rows), prepared=round(part.prepared * others),
        barriers=round(part.barriers * layers), layers=round(part.layers * layers),
        heads=round(part.heads * others * layers),
    )  # fmt: skip


def _ceil(count: int, parts: int) -> int:
    return -(-count // parts)


def _units(count: int, tp: int) -> int:
    """The most rows that a rank has, in whole units."""
    return min(count, _ceil(_ceil(count, UNIT), tp) * UNIT)


def _rows(config: Config, name: str, count: int, tp: int) -> int:
    """Of a matrix; those of queries, keys and values by heads, in units around them."""
    own = {"q": _ceil(config.heads, tp) / config.heads, "k": _keys(config, tp)}
    own["v"] = own["k"]
    return _units(round(count * own[name]), 1) if name in own else _units(count, tp)


def _keys(config: Config, tp: int) -> float:
    """The part of the heads of keys and values that a rank has, one at the least."""
    return _ceil(_ceil(config.heads, tp), config.group) / config.kv_heads


def shared_machine(hardware: Hardware, ranks: int, threads: int, busy: int) -> Hardware:
    """One machine as each of some ranks sees it that are on it, with so many threads each.

    busy: ranks that work at the same time.
    """
    together = busy * threads

    def constant(curve: Curve | None) -> Curve | None:
        return curve and Curve((1,), (curve.at(together),))

    def level(each: Level) -> Level:
        costs = (each.fixed.token, each.fixed.layer, each.fixed.head)
        fixed = Fixed(*(Curve((1,), (curve.at(threads),)) for curve in costs))
        if not each.shared:
            return replace(each, fixed=fixed)
        rate = Curve((1,), (each.rate(together) / busy,))
        return replace(each, bandwidth=rate, capacity=each.capacity / ranks, fixed=fixed)

    kernels = {
        name: Kernel(
            constant(each.gemv), constant(each.gemm), constant(each.row), constant(each.prepare),
            {where: Curve((1,), (curve.at(together),)) for where, curve in each.reach.items()},
        )
        for name, each in hardware.kernels.items()
    }  # fmt: skip
    return replace(
        hardware, cores=(Cores("shared", threads, hardware.clock(together)),),
        levels=tuple(map(level, hardware.levels)), kernels=kernels,
        memory=hardware.memory / ranks,
    )  # fmt: skip
