"""Hidden states of whole sequences, pooled: many sequences one behind another in each pass.

No row of a pass is padding: a tile of attention ends where its sequence does, and a cache holds the
sequences of a pass one after another. What a sequence is pooled to has the same bits whichever
others are in its passes.
"""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.cache import Cache, padded
from ternops.decoder.loaded import LoadedModel
from ternops.decoder.session import WorkspacePool
from ternops.decoder.workspace import MAX_TOKENS
from ternops.kernels.attention import POSITIONS
from ternops.memory import HoldsAddresses
from ternops.spelling import expected_one

Array = npt.NDArray[Any]

#: Of the cache that the sequences of a pass have, each whole pages: room for 64 short ones.
_POSITIONS = 64 * POSITIONS
#: In which embeddings can be had.
DTYPES = ("float32", "int8", "binary")
# The least length that is divided by, as in torch.nn.functional.normalize.
_MIN_LENGTH = 1e-12
# Embeddings of which ranges are taken without a word.
_MIN_CALIBRATING = 100


class Embedder(HoldsAddresses):
    """Pools the hidden states of sequences of tokens. Not for two Python threads at a time."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._pool = WorkspacePool(model)
        self._cache = Cache(
            model.config, model.cache, _POSITIONS, reuses_layers=True, split=model.split
        )

    def __call__(
        self,
        sequences: Sequence[Sequence[int]],
        mean: bool = False,
        skipped: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """float32 (sequences, hidden): of each the normed hidden state of its last token, or the
        mean of all but the first `skipped`, added one after another in float64.

        sequences: one token at least each, at most the context, all known.
        progress: called with the sequences that are done, and their number.
        """
        result = np.empty((len(sequences), self._model.config.hidden), np.float32)
        lengths = [len(each) for each in sequences]
        done = 0
        # States of delta nets are of one sequence alone.
        alone = ([number] for number in range(len(lengths)))
        for group in alone if self._cache.states else plan_passes(lengths):
            if len(group) == 1:
                number = group[0]
                result[number] = self._one(sequences[number], mean, skipped)
            else:
                self._several([sequences[each] for each in group], mean, skipped, group, result)
            done += len(group)
            if progress:
                progress(done, len(sequences))
        return result

    def _several(
        self, sequences: list[Sequence[int]], mean: bool, skipped: int, numbers: list[int],
        result: Array,
    ) -> None:  # fmt: skip
        """Sequences that fit one pass."""
        ends = np.cumsum([len(each) for each in sequences])
        workspace = self._pool(int(ends[-1]))
        at = start = 0
        for each in sequences:
            self._cache.reserve(start + len(each))
            workspace.place(at, each, 0, self._cache, start)
            at += len(each)
            start += padded(len(each))
        outputs = range(at) if mean else ends - 1
        states = workspace.run_to_states(at, outputs, self._cache.layer_step)
        if not mean:
            result[numbers] = states
            return
        begin = 0
        for number, end in zip(numbers, ends, strict=True):
            pooled = _Mean(skipped)
            pooled.add(states[begin:end])
            result[number] = pooled.value
            begin = end

    def _one(self, tokens: Sequence[int], mean: bool, skipped: int) -> Array:
        """A sequence of any length, in as few passes as it takes, of about the same size."""
        count = len(tokens)
        step = -(-count // -(-count // MAX_TOKENS))
        cache = self._cache
        if step < count:  # takes much memory and is not kept
            cache = Cache(self._model.config, self._model.cache, count, split=self._model.split)
            cache.reserve(count)
        else:
            cache.reserve(count)
            if kept := cache.states:
                kept.position = None  # of whatever sequence was before
                kept.go_back(0)
        pooled = _Mean(skipped)
        for position in range(0, count, step):
            part = tokens[position : position + step]
            workspace = self._pool(len(part))
            workspace.place(0, part, position, cache)
            is_last = position + step >= count
            outputs = range(len(part)) if mean else range(len(part) - is_last, len(part))
            states = workspace.run_to_states(len(part), outputs, cache.layer_step)
            if mean:
                pooled.add(states)
        result: Array = pooled.value if mean else states[0]
        return result


class _Mean:
    """The mean of rows, all but the first `skipped`, added in float64 in their order."""

    def __init__(self, skipped: int) -> None:
        self._skipped = skipped
        self._sum: Array | None = None
        self._count = 0

    def add(self, rows: Array) -> None:
        left_out = min(self._skipped, len(rows))
        self._skipped -= left_out
        for row in rows[left_out:]:
            self._sum = row.astype(np.float64) if self._sum is None else self._sum + row
            self._count += 1

    @property
    def value(self) -> Array:
        assert self._sum is not None  # a sequence is longer than what is left out of it
        return (self._sum / self._count).astype(np.float32)


def plan_passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of the sequences of each pass, or of one that is longer than a pass.

    The longest first, and behind it the longest that fit what is left of the pass.
    """
    by_length: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        by_length.setdefault(length, []).append(number)
    left = sorted(by_length)

    def take(most: int) -> int | None:
        place = bisect.bisect_right(left, most) - 1
        if place < 0:
            return None
        numbers = by_length[left[place]]
        number = numbers.pop()
        if not numbers:
            del left[place]
        return number

    while left:
        first = take(left[-1])
        assert first is not None
        group = [first]
        tokens, positions = MAX_TOKENS - lengths[first], _POSITIONS - padded(lengths[first])
        while tokens > 0 and (found := take(min(tokens, positions))) is not None:
            group.append(found)
            tokens -= lengths[found]
            positions -= padded(lengths[found])
        yield group


def unit_length(embeddings: Array) -> npt.NDArray[np.float32]:
    """Each row divided by its Euclidean length, computed in float64; a row of zeros stays it."""
    wide = embeddings.astype(np.float64)
    lengths = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    return (wide / np.maximum(lengths, _MIN_LENGTH)).astype(np.float32)


def quantize_embeddings(embeddings: Array, dtype: str, ranges: Any = None) -> Array:
    """float32 (n, d) embeddings as sentence-transformers' `quantize_embeddings` makes them.

    "int8": (n, d), the bucket of 256 in which a value lies between the least and the largest one
    of its dimension, minus 128; ranges: these two, (2, d), default: those of the embeddings, with
    a warning where they are fewer than 100, whose buckets say little.
    "binary": int8 (n, d / 8), a bit for each value above 0, the first one highest, minus 128.
    Raises ValueError for another dtype or other ranges.
    """
    check_dtype(dtype, ranges, embeddings.shape[1])
    if dtype == "float32":
        return embeddings
    if dtype == "binary":
        return (np.packbits(embeddings > 0, axis=-1) ^ np.uint8(128)).view(np.int8)
    if not len(embeddings):
        return np.empty(embeddings.shape, np.int8)
    if ranges is None:
        if len(embeddings) < _MIN_CALIBRATING:
            warnings.warn(
                f"dtype='int8': buckets of {len(embeddings)} embedding(s) alone, expected ranges "
                f"or at least {_MIN_CALIBRATING}",
                stacklevel=2,
            )
        ranges = [embeddings.min(axis=0), embeddings.max(axis=0)]
    ranges = np.asarray(ranges, np.float32)
    steps = (ranges[1] - ranges[0]) / 255
    steps = np.where(steps == 0, 1, steps)
    buckets = np.clip(np.floor((embeddings - ranges[0]) / steps), 0, 255)
    result: Array = (buckets - 128).astype(np.int8)
    return result


def check_dtype(dtype: str, ranges: Any, columns: int) -> None:
    """Raises ValueError for a dtype, or ranges of so many columns, that cannot be had."""
    if dtype not in DTYPES:
        raise ValueError(expected_one("dtype", dtype, DTYPES))
    if ranges is not None:
        if dtype != "int8":
            raise ValueError(f"ranges: expected with dtype='int8' alone, not {dtype!r}")
        given = np.asarray(ranges, np.float32)
        if given.shape != (2, columns) or not np.isfinite(given).all():
            raise ValueError(
                f"ranges: of shape {given.shape}, expected the least and the largest value of "
                f"each dimension, finite, (2, {columns})"
            )
