"""A model in memory: weights, and everything that kernels need to know of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.active import check_low
from ternops.decoder.adapter import Adapter, AdapterTable
from ternops.decoder.architectures import DELTA_SLOTS
from ternops.decoder.attention import CACHES
from ternops.decoder.cache import PageArray, page_bytes
from ternops.decoder.config import A48, Config
from ternops.decoder.deltas import Delta, Deltas
from ternops.decoder.head import Head
from ternops.decoder.parts import check_parts, operand_from
from ternops.decoder.records import LAYER
from ternops.decoder.sparsity import Sparsity
from ternops.decoder.stacked import ResidentStack
from ternops.decoder.states import layer_bytes
from ternops.decoder.weight_types import WeightType, types_of
from ternops.decoder.weights import HalfMatrix, Weights, operand_of
from ternops.decoder.whole_pages import WholePages
from ternops.kernels.call import Call
from ternops.kernels.grouped_row import SCRATCH_BYTES, grouped_row
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import make_plan
from ternops.memory import aligned_zeros, mapped_zeros
from ternops.ranks.split import Span, split_of
from ternops.spelling import expected_one
from ternops.threads import check_threads

if TYPE_CHECKING:  # MPI is there where a model is shared out alone
    from ternops.ranks.group import Group

# As a window: all positions that there can be.
_ALL = 2**31


class Rotations(NamedTuple):
    """(context, rotated/2): what rope multiplies the pairs of a head by."""

    cosine: npt.NDArray[Any]
    sine: npt.NDArray[Any]


class LoadedModel:
    """Weights ready for the kernels, and how they are to be computed with.

    This is what sessions and workspaces know of a model; `Model` adds what people do with one.
    """

    def __init__(
        self, weights: Weights, threads: int | None = None, head: str = "fp16", cache: str = "fp16",
        sparse: str = "auto", deltas: Mapping[str, Delta] | None = None,
        group: Group | None = None, adapter: Adapter | None = None,
    ) -> None:  # fmt: skip
        self.weights = weights
        self.config: Config = weights.config
        #: The processes that have a part of it each, None for one alone.
        self.group = group
        if group is not None:
            check_parts(weights, deltas, adapter)
        #: What this one has, and all that share out the same layers.
        self.split = split_of(self.config, *(() if group is None else group.part))
        self.splits = [self.split] if group is None else group.splits(self.config)
        self.threads = check_threads(threads)
        #: Whether it may use fewer threads while other processes keep the CPUs busy.
        self.adapts = threads is None
        if cache not in CACHES:
            raise ValueError(expected_one("cache", cache, CACHES))
        self.cache = cache
        #: Those of the linear layers.
        self.types = types_of(weights)
        rows = self.config.vocabulary, self.split.vocabulary.first
        self.head = Head(weights.head, head, self.threads, *rows)
        #: Fine-tunes of these weights, by their names.
        self.deltas = Deltas(weights, deltas or {})
        if self.deltas:
            # What a list leaves out is 0 with the base alone.
            if sparse == "always":
                raise ValueError(f"sparse={sparse!r}: not with deltas, expected auto or never")
            sparse = "never"
        #: What stands beside the linear layers of all tokens.
        self.adapter = adapter
        self.adapter_table = None if adapter is None else AdapterTable(self.config, adapter)
        if adapter is not None:
            if self.deltas:
                raise ValueError("lora: not together with deltas, expected one of them")
            if sparse == "always":
                raise ValueError(f"sparse={sparse!r}: not with lora, expected auto or never")
            sparse = "never"
        if self.config.activation_quantization == A48:
            check_low(self.types)
            if self.deltas or adapter is not None:
                what = "deltas" if self.deltas else "lora"
                raise ValueError(f"{what}: not of a model with activations of a4.8, expected none")
        self.sparsity = Sparsity(weights, self.encoding, sparse, self.threads)
        #: Those of each layer; layers of a kind share them.
        self.rotations = rotations_of(self.config)
        #: The weight of the last norm, with the factor of the logits.
        self.norm = weights.norm * np.float32(self.config.logit_scale)
        linear = [each for layer in weights.layers for each in layer.linear.values()]
        self._stacks = [each for each in linear if isinstance(each, ResidentStack)]
        self._table = self._layer_table()
        self._embedding = self._embedding_record()

    @property
    def encoding(self) -> str:
        """How the linear layers are packed, "fp16" or "bf16", or several of them."""
        return " and ".join(dict.fromkeys(each.encoding for each in self.types))

    def __reduce__(self) -> Any:
        if self.group is not None:
            raise TypeError("a Model that several processes have together cannot be pickled")
        # By value: its records hold addresses. Another process has its own number of threads.
        threads = None if self.adapts else self.threads
        kinds = self.head.kind, self.cache, self.sparsity.kind
        return type(self), (self.weights, threads, *kinds, self.deltas.of, None, self.adapter)

    def __copy__(self) -> LoadedModel:
        return self  # nothing of it changes

    def __deepcopy__(self, memo: Any) -> LoadedModel:
        return self

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that a token reads; `Session.kv_cache_bytes` says what comes to them."""
        beside = 0 if self.adapter is None else self.adapter.nbytes
        return self.weights.bytes_per_token - self.weights.head.nbytes + self.head.nbytes + beside

    @property
    def page_bytes(self) -> int:
        """Of a page of keys and values, those that this process has."""
        return page_bytes(self.config, self.cache, self.split)

    def new_page(self) -> PageArray:
        """Zeros for one; MemoryError where the system has none."""
        new_page: Callable[[], PageArray] = functools.partial(mapped_zeros, self.page_bytes)
        return new_page() if self.group is None else self.group.noted(new_page)()

    def whole_pages(self) -> WholePages | None:
        """What makes whole pages of the parts that processes have; None for one alone."""
        if self.group is None:
            return None
        head_bytes = CACHES[self.cache].elements.head_bytes(self.config.head_dim)
        return WholePages(self.group, self.config, head_bytes)

    @property
    def addresses(self) -> dict[str, int]:
        """The weights, for a forward pass's record."""
        w = self.weights
        found = {"layer_table": self._table.ctypes.data, "norm": self.norm.ctypes.data}
        if isinstance(w.embedding, HalfMatrix):
            return {
                **found,
                "embedding": w.embedding.bits.ctypes.data,
                "embedding_stride": w.embedding.bits.strides[0],
                "embedding_is_bf16": w.embedding.is_bf16,
            }
        return {
            **found,
            "embedding": self._embedding.ctypes.data,
            "embedding_row": grouped_row(w.embedding.encoding).address,
        }

    def state_of_weights(self, delta: str | None) -> Hashable:
        """What a sequence's keys and values depend on beside its tokens, and can change: which
        delta it has, with which scales, and how many blocks of stacks count."""
        scales = self.deltas.scales(delta).tobytes() if delta else b""
        return delta, scales, tuple(each.count for each in self._stacks)

    def _embedding_record(self) -> npt.NDArray[Any]:
        """What a look-up in a packed embedding is told."""
        if isinstance(self.weights.embedding, HalfMatrix):
            return np.zeros(0, OPERANDS)
        self._room = aligned_zeros(self.threads * SCRATCH_BYTES, np.uint8)
        record = np.zeros(1, OPERANDS)
        call = Call.of(operand_of(self.weights.embedding), 1)
        call.write_apart(record.view(np.uint8).data, 0, 0, 0, 0, 0, self._room.ctypes.data)
        record["scratch_stride"] = SCRATCH_BYTES
        return record

    def _layer_table(self) -> npt.NDArray[Any]:
        layers = self.weights.layers
        table = np.zeros(len(layers), LAYER)
        start = self.split.layers.first
        for number, (row, layer) in enumerate(zip(table, layers, strict=True), start):
            for full_name, matrix in layer.linear.items():
                name = DELTA_SLOTS.get(full_name, full_name)
                span = Span(0, matrix.shape[0])
                rows = self.config.linear_shapes(number)[full_name][0]
                if not self.split.is_whole:
                    span = self.split.rows(name)
                operand = operand_from(matrix, span.first, rows)
                kind = WeightType.of(operand)
                row[name] = operand.address
                row[f"{name}_stride"] = kind.plan(operand.columns, "stream").stride
                row[f"{name}_scale"] = operand.scales
                row[f"{name}_scale_step"] = operand.scale_step
                row[f"{name}_type"] = self.types.index(kind)
                if name in ("q", "k", "v"):
                    row[f"{name}_rows"] = rows
                if name in ("q", "k"):
                    row[f"{name}_first"], row[f"{name}_last"] = span
            for name, norm in layer.norms.items():
                row[f"{name}_norm"] = norm.ctypes.data
            for name, bias in layer.biases.items():
                row[f"{name}_bias"] = bias.ctypes.data
            for name, vector in layer.vectors.items():
                row[name] = vector.ctypes.data
        rotated = self.rotations[start : self.split.layers.last]
        for number, (row, rotations) in enumerate(zip(table, rotated, strict=True), start):
            row["place"] = self.config.place(number) - self.config.place(start)
            if self.config.is_delta(number):
                row["place"] *= layer_bytes(self.config)
            row["window"] = self.config.window(number) or _ALL
            row["cosine"] = rotations.cosine.ctypes.data
            row["sine"] = rotations.sine.ctypes.data
        for row, columns in zip(table, self.sparsity.columns, strict=False):
            row["columns"] = columns._packed.operand.address
            row["columns_stride"] = make_plan(columns.encoding, columns.shape[1], "stream").stride
        return table


def rotations_of(config: Config, dtype: type[np.floating[Any]] = np.float32) -> list[Rotations]:
    """Those of each layer; layers of a kind share them."""

    def make(local: bool) -> Rotations:
        angles, scale = config.rope_angles(local), 1.0 if local else config.rope_scale
        return Rotations(*((scale * each(angles)).astype(dtype) for each in (np.cos, np.sin)))

    of_all = make(False)
    local = make(True) if config.rope_local_theta and any(config.windows) else of_all
    return [local if config.window(layer) else of_all for layer in range(config.layers)]
