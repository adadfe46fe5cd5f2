"""Model: weights ready for the kernels; Session: one sequence's cache and buffers."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.checkpoint import load_weights, open_checkpoint
from ternops.decoder.config import Config
from ternops.decoder.sample import Sampler
from ternops.decoder.token import CALL, LAYER, MODEL, PARTS, decode
from ternops.decoder.weights import HalfMatrix, Weights
from ternops.encodings import ENCODINGS
from ternops.kernels.attention import PAD
from ternops.kernels.half import LINE
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import make_plan
from ternops.matrix import TernaryMatrix
from ternops.memory import aligned_zeros
from ternops.quantize import BITNET_ABSMAX
from ternops.team import TEAM, check_threads

#: Threads share rows in multiples of this: whole cache lines of float32.
_LINE_OF_FLOATS = 16


class Model:
    """A decoder. `threads`: how many run each token (default: all)."""

    def __init__(self, weights: Weights, threads: int | None = None) -> None:
        self.weights = weights
        self.config: Config = weights.config
        self.threads = check_threads(threads)
        kinds = {
            each.encoding if isinstance(each, TernaryMatrix) else ""
            for layer in weights.layers
            for each in layer.linear.values()
        }
        if len(kinds) != 1:
            raise ValueError(f"weights: encodings {sorted(kinds)}, expected one for all layers")
        #: How the linear layers are packed; "" for float16.
        self.encoding = kinds.pop()
        self._table = _layer_table(weights)
        angles = np.outer(
            np.arange(self.config.context),
            self.config.rope_theta
            ** (-np.arange(0, self.config.head_dim, 2, dtype=np.float64) / self.config.head_dim),
        )
        self.cosine = np.cos(angles).astype(np.float32)
        self.sine = np.sin(angles).astype(np.float32)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        weights: str = "ternary",
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Model:
        """Load a Hugging Face folder (default: the tiny checkpoint of this package).

        weights: "ternary" for the best encoding here, the name of an encoding, or "fp16" for the
        baseline: the float16 of the quantised weights and activations that are not quantised.
        progress: called with layers done and in all.
        Raises FileNotFoundError and ValueError, naming the file, the tensor or the setting.
        """
        kinds = {"ternary": "auto", "fp16": "float16", **{name: name for name in ENCODINGS}}
        if weights not in kinds:
            raise ValueError(f"weights={weights!r}: expected one of {', '.join(kinds)}")
        check_threads(threads)
        return cls(load_weights(open_checkpoint(path), kinds[weights], progress), threads)

    def logits(self, token_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """float32 (tokens, vocabulary): the prediction behind each token of one sequence.

        Raises ValueError for no tokens, an unknown one, or more than the context holds.
        """
        tokens = self._check_tokens(token_ids)
        session = Session(self)
        return np.stack([session.step(token).copy() for token in tokens])

    def generate(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop_at_eos: bool = True,
    ) -> Iterator[int]:
        """Yield up to max_new_tokens token ids, fewer at an end token or where the context ends.

        Raises ValueError at once for the tokens, as `logits`, and for settings out of range.
        """
        tokens = self._check_tokens(token_ids)
        if operator.index(max_new_tokens) < 0:
            raise ValueError(f"max_new_tokens={max_new_tokens}: expected 0 or more")
        sampler = Sampler(temperature, top_p, seed)
        ends = self.config.eos if stop_at_eos else ()
        return self._generate(tokens, max_new_tokens, sampler, ends)

    def _generate(
        self, tokens: list[int], most: int, sampler: Sampler, ends: tuple[int, ...]
    ) -> Iterator[int]:
        session = Session(self)
        for token in tokens[:-1]:
            session.step(token, wants_logits=False)
        token = tokens[-1]
        for _ in range(min(most, self.config.context - len(tokens) + 1)):
            token = sampler(session.step(token))
            if token in ends:
                return
            yield token

    def _check_tokens(self, token_ids: Sequence[int]) -> list[int]:
        if isinstance(token_ids, str):
            raise TypeError("token_ids: a string, expected integers (tokenize it first)")
        try:
            tokens = [operator.index(token) for token in token_ids]
        except TypeError as error:
            raise TypeError(f"token_ids: {error}, expected integers") from None
        if not tokens:
            raise ValueError("token_ids: empty, expected at least one token")
        if len(tokens) > self.config.context:
            raise ValueError(
                f"token_ids: {len(tokens)} tokens, expected at most the context of "
                f"{self.config.context}"
            )
        for token in tokens:
            if not 0 <= token < self.config.vocabulary:
                raise ValueError(
                    f"token_ids: {token} is no token, expected 0 to {self.config.vocabulary - 1}"
                )
        return tokens


class Session:
    """One sequence: the cache of its keys and values, and the buffers of its computation."""

    def __init__(self, model: Model) -> None:
        self._model = model  # keeps the weights alive, whose addresses the record holds
        self.position = 0
        c = model.config
        padded = -(-c.head_dim // PAD) * PAD
        queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
        cache = c.layers * c.kv_heads * c.context * padded
        longest = max(c.hidden, c.ffn, queries)
        template, row_step = _operands(model.encoding, (c.hidden, c.ffn, queries))
        own_floats = len(template)
        own_scores = own_floats + 4 * (longest + 2 * LINE)
        score_stride = c.context + LINE
        own_bytes = -(-(own_scores + 4 * c.group * score_stride) // 64) * 64
        self._buffers = {
            "x": _floats(c.hidden),
            "y": _floats(c.hidden),
            "q": _floats(queries),
            "k": _floats(keys),
            "v": _floats(keys),
            "rotated": _floats(c.heads * padded),
            "attention": _floats(queries),
            "gate": _floats(c.ffn),
            "up": _floats(c.ffn),
            "logits": _floats(c.vocabulary),
            "keys": aligned_zeros(cache, np.float32),
            "values": aligned_zeros(cache, np.float32),
            "own": aligned_zeros(model.threads * own_bytes, np.uint8),
        }
        w = model.weights
        record = np.zeros((), MODEL)
        for name, value in {
            "hidden": c.hidden,
            "ffn": c.ffn,
            "layers": c.layers,
            "heads": c.heads,
            "kv_heads": c.kv_heads,
            "head_dim": c.head_dim,
            "padded": padded,
            "vocabulary": c.vocabulary,
            "context": c.context,
            "ternary": bool(model.encoding),
            "relu2": c.activation == "relu2",
            "embedding_is_bf16": w.embedding.is_bf16,
            "head_is_bf16": w.head.is_bf16,
            "layer_table": model._table.ctypes.data,
            "embedding": w.embedding.bits.ctypes.data,
            "head": w.head.bits.ctypes.data,
            "norm": w.norm.ctypes.data,
            "cosine": model.cosine.ctypes.data,
            "sine": model.sine.ctypes.data,
            "own_bytes": own_bytes,
            "own_floats": own_floats,
            "own_scores": own_scores,
            "score_stride": score_stride,
            "row_step": row_step,
            "epsilon": c.epsilon,
        }.items():
            record[name] = value
        for name, buffer in self._buffers.items():
            record[name] = buffer.ctypes.data
        for thread in range(model.threads):
            own = self._buffers["own"][thread * own_bytes :][: len(template)]
            own[:] = template
            _place_operands(own)
        self._record = record
        self._address = record.ctypes.data
        self._call = record.reshape(1).view(np.int64)[CALL]
        self._logits = self._buffers["logits"][: c.vocabulary]

    @property
    def cache_bytes(self) -> int:
        """Bytes of cache that the next token reads and writes."""
        c = self._model.config
        return 2 * 4 * c.layers * c.kv_heads * c.head_dim * (self.position + 1)

    def measure(self) -> npt.NDArray[np.int64]:
        """From now on add up nanoseconds by `token.PARTS`; gives the array that is added to."""
        laps = np.zeros(len(PARTS), np.int64)
        self._buffers["laps"] = laps
        self._record["laps"] = laps.ctypes.data
        return laps

    def step(self, token: int, wants_logits: bool = True) -> npt.NDArray[np.float32]:
        """Decode one token; float32 (vocabulary,) logits, overwritten by the next step."""
        if self.position >= self._model.config.context:
            raise ValueError(f"token {self.position}: expected at most the context's")
        # Few Python objects are touched here: the weights have driven them out of the caches.
        self._call[:] = token, self.position, wants_logits
        TEAM.run_at(decode.address, self._address, self._model.threads)
        self.position += 1
        return self._logits


def _floats(count: int) -> npt.NDArray[Any]:
    """Zeros with a padding that kernels may read, and that nothing but zeros are written to."""
    return aligned_zeros(count + 2 * LINE, np.float32)


#: Where a thread's prepared activations lie, behind its OPERANDS record and their sum and step.
_PLACED = -(-(OPERANDS.itemsize + 8) // 64) * 64


def _operands(encoding: str, lengths: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], int]:
    """An OPERANDS record with room for activations of these lengths, and the plan's row_step."""
    if not encoding:
        return np.zeros(_PLACED, np.uint8), _LINE_OF_FLOATS
    plans = [make_plan(encoding, columns, "stream") for columns in lengths]
    placed = -(-max(plan.placed_bytes for plan in plans) // 64) * 64
    size = _PLACED + placed + max(plan.scratch_bytes for plan in plans)
    template = np.zeros(-(-size // 64) * 64, np.uint8)
    record = template[: OPERANDS.itemsize].view(OPERANDS)[0]
    record["prepare"], record["multiply"] = plans[0].prepare, plans[0].multiply
    record["fields"], record["is_float"], record["tokens"] = plans[0].fields, 1, 1
    record["floor"] = BITNET_ABSMAX
    record["scratch"] = _PLACED + placed
    return template, max(plans[0].row_step, _LINE_OF_FLOATS)


def _place_operands(own: npt.NDArray[np.uint8]) -> None:
    """Make offsets into addresses, in a copy of what `_operands` made, where it lies now."""
    record = own[: OPERANDS.itemsize].view(OPERANDS)[0]
    record["placed"] = own.ctypes.data + _PLACED
    record["offsets"] = own.ctypes.data + OPERANDS.itemsize
    record["steps"] = own.ctypes.data + OPERANDS.itemsize + 4
    record["scratch"] += own.ctypes.data


def _layer_table(weights: Weights) -> npt.NDArray[Any]:
    table = np.zeros(len(weights.layers), LAYER)
    for row, layer in zip(table, weights.layers, strict=True):
        for name, matrix in layer.linear.items():
            if isinstance(matrix, HalfMatrix):
                row[name] = matrix.bits.ctypes.data
                row[f"{name}_stride"] = matrix.bits.strides[0]
            else:
                packed = matrix._packed
                row[name] = packed.address
                row[f"{name}_stride"] = make_plan(packed.encoding, packed.columns, "stream").stride
                row[f"{name}_scale"] = packed.scale_address
        for name, norm in layer.norms.items():
            row[f"{name}_norm"] = norm.ctypes.data
    return table
