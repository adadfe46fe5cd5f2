"""The memory of a forward pass, and the record through which the compiled code finds it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.active import active_weights
from ternops.decoder.adapter import AdapterScratch
from ternops.decoder.architectures import ACTIVATIONS
from ternops.decoder.attention import CACHES
from ternops.decoder.cache import Cache, layer_bytes_of_page, padded_context
from ternops.decoder.config import A48
from ternops.decoder.delta import delta_fields
from ternops.decoder.deltas import TunedScratch
from ternops.decoder.forward import forward
from ternops.decoder.loaded import LoadedModel
from ternops.decoder.records import MODEL, PARTS, TOKEN
from ternops.decoder.scratch import ThreadScratch, padded_bytes
from ternops.decoder.together import Together, fields_of
from ternops.decoder.weight_types import TypeTable
from ternops.kernels.attention import POSITIONS
from ternops.kernels.screen import ROWS, peak_floats
from ternops.memory import HoldsAddresses, aligned_zeros
from ternops.ranks.group import uninterrupted
from ternops.team import TEAM

Array = npt.NDArray[Any]

#: The most tokens of one pass: enough for the GEMM, and some tens of MB of activations.
MAX_TOKENS = 512
# Threads share rows in multiples of this: whole cache lines of float32.
_LINE_OF_FLOATS = 16
# Queries of a tile of attention, where a sequence has several tokens in a pass.
_TILE_QUERIES = 16
_CALL = ("tokens", "tile_tokens", "outputs", "states", "layer_step")


def size_for(model: LoadedModel, tokens: int) -> tuple[tuple[str, ...], int]:
    """The shape classes, one a type of weights, and the capacity of the workspace for a pass of 1
    to MAX_TOKENS tokens.

    Few capacities, so that a session has few workspaces.
    """
    kinds = tuple(each.shape_class(tokens) for each in model.types)
    return kinds, next(size for size in (1, 8, 64, MAX_TOKENS) if tokens <= size)


class Workspace(HoldsAddresses):
    """Memory for passes of up to `capacity` tokens of one shape class, for each type of weights.

    Some of it is a thread's scratch: its operands, and, for one token, what it prepares. slot: the
    number of a pass among those that are under way together.
    """

    def __init__(
        self, model: LoadedModel, kinds: tuple[str, ...], capacity: int, slot: int = 0
    ) -> None:
        self._model = model  # keeps the weights alive, whose addresses the record holds
        self._capacity = capacity
        c, head = model.config, model.head
        sizes = c.sizes
        queries, keys, values = (sizes[name] for name in ("queries", "keys", "delta_values"))
        mixed = max(queries, values)
        longest = max(c.hidden, c.ffn, mixed)
        # Of delta nets those of attention once more, where there are none.
        lengths = c.hidden, queries, values or queries, c.ffn
        self._types = types = TypeTable(model.types, kinds, lengths, capacity)
        self.tile_tokens = max(1, _TILE_QUERIES // c.group) if capacity > 1 else 1
        score_stride = padded_context(c) + POSITIONS
        self._layer_step = layer_bytes_of_page(c, model.cache, model.split)
        shared = {
            "x": capacity * c.hidden,
            "y": capacity * c.hidden,
            "q": capacity * max(sizes["queries_and_gates"], sizes["delta_mixed"]),
            "k": capacity * max(keys, values),
            "v": capacity * keys,
            "attention": capacity * mixed,
            "kept": capacity * c.delta_heads,
            "written": capacity * c.delta_heads,
            "gate": capacity * c.ffn,
            "up": capacity * c.ffn,
            "normed": capacity * longest,
            "logits": capacity * head.padded,
            "peaks": capacity * peak_floats(head.padded),
        }
        is_low = c.activation_quantization == A48
        if is_low:  # int8, float32 and int64
            codes = -(-capacity * longest // 4)
            shared |= {"codes": codes, "low_steps": capacity, "active": 2 * capacity}
        self._buffers = {name: _zeros(4 * count) for name, count in shared.items()}
        self._tokens = np.zeros((capacity, len(TOKEN.names or ())), np.intp)
        self._outputs = np.zeros(capacity, np.int64)
        self._computed = np.zeros(1, np.int64)
        # As those of the layers: no copy, so that values which are written there later count.
        self._norm = np.ascontiguousarray(model.weights.norm, np.float32)
        longest = max(longest, 3 * c.head_dim + 64)
        self._sparsity = model.sparsity if capacity == 1 else None
        areas = self._sparsity.areas if self._sparsity else {}
        own = ThreadScratch(types, capacity, c.hidden, longest, head.scratch(capacity), areas)
        self._tuned = None
        if model.deltas:
            columns = c.hidden, queries, c.ffn, mixed
            widest = max(rows for each in range(c.layers)
                         for rows, _ in c.linear_shapes(each).values())  # fmt: skip
            self._tuned = TunedScratch(kinds[0], capacity, model.threads, columns, widest)
        self._adapter = None
        if model.adapter_table is not None:
            self._adapter = AdapterScratch(model.adapter_table, model.threads)
        rows = self.tile_tokens * c.group
        self._own = own.allocate(model.threads, rows * c.head_dim, rows * score_stride)
        _, append, attend = CACHES[model.cache]
        self._record: Any = np.zeros((), MODEL)
        for name, value in {
            "hidden": c.hidden, "ffn": c.ffn, "layers": len(model.weights.layers),
            "embeds": int(model.weights.embedding.shape[0] > 0),
            "heads": c.heads, "kv_heads": c.kv_heads, "head_dim": c.head_dim, "rotated": c.rotated,
            "vocabulary": c.vocabulary, **delta_fields(c), **fields_of(model.split),
            "low": is_low,
            "activation": ACTIVATIONS.index(c.activation),
            "epsilon": c.epsilon, "inner_epsilon": c.inner_epsilon,
            "score_scale": np.float32(1) / np.sqrt(np.float32(c.query_scalar or c.head_dim)),
            "embedding_scale": np.float32(c.embedding_scale),
            "residual_scale": np.float32(c.residual_scale),
            **model.addresses, **(self._tuned.fields if self._tuned else {}),
            **(self._adapter.fields if self._adapter else {}),
            **(self._sparsity.fields if self._sparsity else {}),
            "logits_stride": head.padded,
            "own": own.address, "own_bytes": own.bytes, "own_head": own.head,
            "own_floats": own.floats, "own_queries": own.queries, "own_scores": own.scores,
            **{f"own_{name}": offset for name, offset in own.areas.items()},
            "own_columns": own.columns, "own_counts": own.counts,
            "score_stride": score_stride, "row_step": math.lcm(types.row_step, _LINE_OF_FLOATS),
            "type_table": types.table.ctypes.data,
            "append": append.address, "attend": attend.address, "head_step": ROWS,
            "peak_count": peak_floats(head.padded), "token_table": self._tokens.ctypes.data,
            "output_table": self._outputs.ctypes.data, "state_norm": self._norm.ctypes.data,
            "computed": self._computed.ctypes.data,
        }.items():  # fmt: skip
            self._record[name] = value
        for name, buffer in self._buffers.items():
            self._record[name] = buffer.ctypes.data
        # -inf: what follows the last block of rows is never the largest.
        self._buffers["peaks"].view(np.float32)[:] = -np.inf
        self._together = None
        if model.group is not None:
            peaks = peak_floats(head.padded)
            self._together = Together(model, self._record, self.inputs, peaks, slot)
        self._address = self._record.ctypes.data
        first = MODEL.fields[_CALL[0]][1] // 8  # type: ignore[index]
        self._call = self._record.reshape(1).view(np.int64)[first : first + len(_CALL)]
        self._logits = self._buffers["logits"].view(np.float32)[: capacity * head.padded]
        self._logits = self._logits.reshape(capacity, head.padded)[:, : c.vocabulary]
        self._exact_top = -1
        self._passes = self._decoded = 0

    def profile(self) -> npt.NDArray[np.int64]:
        """From now on add up nanoseconds by `PARTS`; returns the array that they are added to."""
        profile = np.zeros(len(PARTS), np.int64)
        self._buffers["profile"] = profile.view(np.uint8)
        self._record["profile"] = profile.ctypes.data
        return profile

    def place(
        self, at: int, ids: Any, position: int, cache: Cache, start: int = 0, delta: int = 0
    ) -> None:
        """Let rows [at, at + n) of the next pass be the tokens `ids` of one sequence.

        position: of the first of them. cache: with pages for all of them. start: where in the cache
        the sequence begins. delta: the address of what they have besides the base
        (`Deltas.address`).
        """
        count = len(ids)
        if self._tuned:
            self._tuned.place(at, count, delta)
        rows = self._tokens[at : at + count]
        rows[:, 0] = ids
        rows[:, 1] = position if count == 1 else range(position, position + count)
        rows[:, 2:] = cache.addresses(start)

    @property
    def inputs(self) -> Array:
        """float32 (capacity, hidden): where the vectors of tokens that are placed are written
        before a pass of a model without an embedding, which overwrites them."""
        hidden = self._model.config.hidden
        count = self._capacity * hidden
        return self._buffers["x"].view(np.float32)[:count].reshape(self._capacity, hidden)

    def run(self, tokens: int, outputs: Any, exact_top: int, tile_tokens: int) -> Array:
        """A pass of the `tokens` that were placed; float32 (outputs, vocabulary) logits.

        outputs: which of them, in order. exact_top: how many of the largest logits must be exact,
        where the head screens (0: all). tile_tokens: how many consecutive tokens are of one
        sequence, so that a tile of attention holds them.
        The next pass overwrites the logits.
        """
        self._choose(tokens, outputs, exact_top, tile_tokens)
        if self._together is None:
            self._run_job(tokens)
        else:
            self._run_together()
        return self._logits[: len(outputs)]

    def start(self, tokens: int, outputs: Any, exact_top: int, tile_tokens: int) -> None:
        """Begin a pass, as `run`, of several processes; `finish` ends it. Between the two other
        workspaces may have theirs, where processes have layers in turn."""
        self._choose(tokens, outputs, exact_top, tile_tokens)
        self._start()

    def finish(self) -> Array:
        """The logits of the pass that has begun."""
        self._finish()
        return self._logits[: int(self._call[2])]

    def _choose(self, tokens: int, outputs: Any, exact_top: int, tile_tokens: int) -> None:
        count = len(outputs)
        if exact_top != self._exact_top:
            self._use_head(exact_top)
        self._outputs[:count] = outputs
        self._call[:] = tokens, tile_tokens, count, 0, self._layer_step

    def run_to_states(self, tokens: int, outputs: Any, layer_step: int) -> Array:
        """A pass without the head: float32 (outputs, hidden), the normed hidden states.

        outputs: of which tokens. layer_step: that of the cache that all of them were placed with.
        The next pass overwrites them.
        """
        count, hidden = len(outputs), self._model.config.hidden
        self._outputs[:count] = outputs
        self._call[:] = tokens, self.tile_tokens, 0, count, layer_step
        if self._together is None:
            self._run_job(tokens)
        else:
            self._run_together()
        return self._buffers["normed"].view(np.float32)[: count * hidden].reshape(count, hidden)

    def follow(
        self, tokens: npt.NDArray[np.int64], outputs: npt.NDArray[np.int64], call: list[int]
    ) -> None:
        """This process's part of a pass that another one leads.

        tokens: (tokens, 4), a TOKEN each. outputs: which of them have logits, or states. call: what
        `run` and `run_to_states` take: how many of the largest logits must be exact, tokens of a
        tile, with logits and with states, and whether layers have memory of their own
        in a page.
        """
        exact_top, *rest, apart = call
        if exact_top != self._exact_top and exact_top >= 0:
            self._use_head(exact_top)
        self._tokens[: len(tokens)] = tokens
        self._outputs[: len(outputs)] = outputs
        # Its pages hold other heads, maybe more or fewer of them.
        self._call[:] = len(tokens), *rest, self._layer_step if apart else 0
        assert self._together is not None
        self._together.begin(self._run_job)

    def end_following(self) -> None:
        """What comes behind a pass that `follow` has begun."""
        assert self._together is not None
        self._together.end(self._run_job)

    def _run_together(self) -> None:
        """All of a pass."""
        with uninterrupted():  # or nobody would take what others have begun
            self._start()
            self._finish()

    def _start(self) -> None:
        assert self._together is not None
        tokens, tile, outputs, states, step = self._call.tolist()
        call = self._exact_top, tile, outputs, states, int(step == self._layer_step)
        with uninterrupted():
            self._together.tell(self._tokens[:tokens], self._outputs[: outputs + states], call)
            self._together.begin(self._run_job)

    def _finish(self) -> None:
        assert self._together is not None
        with uninterrupted():
            self._together.tell_end()
            self._together.end(self._run_job)

    def _run_job(self, tokens: int) -> None:
        work = (self._address, tokens) if self._model.adapts else None
        self._passes += 1
        self._decoded += tokens
        if self._tuned:
            self._record["runs"], self._record["tuned_prepare"] = self._tuned.begin(tokens)
        TEAM.run_at(forward.address, self._address, self._model.threads, work)

    @property
    def shares_read(self) -> tuple[float, float]:
        """Of the rows of `up` and of the columns of `down`: what all passes so far have read."""
        config = self._model.config
        layers = self._passes * len(self._model.weights.layers)
        entries = np.array([layers * self._model.split.ffn.size, layers * config.ffn])
        if not entries.all() or not self._sparsity or self._sparsity.kind == "never":
            return 1.0, 1.0
        rows, columns = self._own.total_counts()[:2] / entries
        return float(rows), float(columns)

    @property
    def active(self) -> tuple[int, int]:
        """The weights that the codes of all tokens so far have used, where activations are those of
        a4.8, and how many tokens there were."""
        counts = self._own.total_counts()[2:].tolist()
        return active_weights(self._model.config, counts), self._decoded

    def take_computed(self) -> int:
        """Rows that a screened head computed since the last call; of several processes, those for
        the last pass."""
        if self._together is not None:
            return int((self._logits[: int(self._call[2])] > -np.inf).sum())
        computed = int(self._computed[0])
        self._computed[0] = 0
        return computed

    def _use_head(self, exact_top: int) -> None:
        view = self._model.head.view(exact_top, self._capacity)
        self._exact_top = -1  # until all is set, should an interrupt come in between
        for name, value in view.model.items():
            self._record[name] = value
        logits = int(self._record["logits"])
        for record, places in self._own.heads:
            view.call.write_apart(record, 0, logits, *places)
        self._exact_top = exact_top


def _zeros(size: int) -> npt.NDArray[Any]:
    """Zeroed bytes with a padding that kernels may touch."""
    return aligned_zeros(padded_bytes(size), np.uint8)
