"""Calls of the public interface in any order, from several threads, beside NumPy's results.

hypothesis makes the orders, and finds a shortest one that fails. Work is put on threads by one rule
and compared by another, so that calls of several kinds are under way together.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

import ternops
from ternops.encodings import ENCODINGS, TERNARY
from tests.helpers import cases

_SEEDS = st.integers(0, 2**16)
_SHAPES = st.tuples(st.integers(0, 70), st.integers(0, 200))
_TOKENS = st.integers(0, 12)
_THREADS = 4
#: Calls of all machines of this process, for the table.
CALLS = {"calls": 0}


def _in_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


class Held:
    """A matrix of trits without a scale, and what it stands for."""

    def __init__(self, matrix: ternops.TernaryMatrix, values: Any) -> None:
        self.matrix, self.values = matrix, values


class Interface(RuleBasedStateMachine):
    """Exact matrices alone: every product must have NumPy's bits."""

    matrices = Bundle("matrices")

    @initialize()
    def begin(self) -> None:
        """Threads and a folder of its own."""
        self.folder = tempfile.TemporaryDirectory(prefix="ternops-machine-")
        self.pool = ThreadPoolExecutor(_THREADS)
        self.under_way: list[tuple[Future[Any], Any]] = []
        self.threads = ternops.get_num_threads()
        self.files: list[tuple[Path, Any]] = []

    @rule(target=matrices, shape=_SHAPES, encoding=st.sampled_from([*ENCODINGS]), seed=_SEEDS)
    def pack(self, shape: tuple[int, int], encoding: str, seed: int) -> Held:
        """Of any encoding that has levels."""
        CALLS["calls"] += 1
        values = cases.trits(*shape, seed=seed, encoding=encoding)
        return Held(ternops.pack(values, encoding=encoding), values)

    @rule(target=matrices, held=matrices)
    def transpose(self, held: Held) -> Held:
        """A view."""
        CALLS["calls"] += 1
        return Held(held.matrix.T, held.values.T)

    @rule(target=matrices, held=matrices, how=st.sampled_from(["copy", "deepcopy", "pickle"]))
    def duplicate(self, held: Held, how: str) -> Held:
        """A matrix that stands alone."""
        CALLS["calls"] += 1
        if how == "pickle":
            return Held(pickle.loads(pickle.dumps(held.matrix)), held.values)
        return Held(getattr(copy, how)(held.matrix), held.values)

    @rule(target=matrices, held=matrices, encoding=st.sampled_from([*TERNARY]))
    def convert(self, held: Held, encoding: str) -> Held:
        """The same levels in another encoding, or a line that says why not."""
        CALLS["calls"] += 1
        allowed = set(ENCODINGS[encoding].values)
        if not set(np.unique(held.values).tolist()) <= allowed:
            try:
                held.matrix.to(encoding)
            except ValueError as error:
                _in_one_line(error)
                return held
            raise AssertionError(f"{encoding} has no such levels")
        try:
            return Held(held.matrix.to(encoding), held.values)
        except ValueError as error:  # levels that the matrix has and no weight is
            _in_one_line(error)
            return held

    @rule(held=matrices, tokens=_TOKENS, seed=_SEEDS, left=st.booleans())
    def multiply(self, held: Held, tokens: int, seed: int, left: bool) -> None:
        """On another thread."""
        CALLS["calls"] += 1
        values = held.values.astype(np.int64)
        if left:
            x = cases.activations(tokens, held.matrix.shape[0], seed=seed)
            expected, work = x.astype(np.int64) @ values, lambda: x @ held.matrix
        else:
            x = cases.activations(held.matrix.shape[1], tokens, seed=seed)
            expected, work = values @ x.astype(np.int64), lambda: held.matrix @ x
        self.under_way.append((self.pool.submit(work), expected))

    @rule(held=matrices, bad=st.sampled_from(["shape", "dtype", "text", "out", "threads"]))
    def multiply_badly(self, held: Held, bad: str) -> None:
        """One line, of the type that NumPy raises."""
        CALLS["calls"] += 1
        x: Any = np.zeros(held.matrix.shape[1], np.int8)
        options: dict[str, Any] = {}
        if bad == "shape":
            x = np.zeros(held.matrix.shape[1] + 1, np.int8)
        elif bad == "dtype":
            x = x.astype(np.complex64)
        elif bad == "text":
            x = ["a"] * len(x) or "a"
        elif bad == "out":
            options["out"] = np.zeros(held.matrix.shape[0] + 1, np.int32)
        else:
            options["threads"] = -1
        try:
            ternops.matmul(held.matrix, x, **options)
        except (TypeError, ValueError) as error:
            _in_one_line(error)
        else:
            raise AssertionError(f"a bad {bad} was taken")

    @rule()
    def compare(self) -> None:
        """What has been put on threads."""
        for future, expected in self.under_way:
            found = future.result(60)
            assert found.dtype == np.int32
            assert np.array_equal(found, expected)
        self.under_way.clear()

    @rule(held=matrices)
    def save(self, held: Held) -> None:
        """On another thread; another file, or the place of an older one."""
        CALLS["calls"] += 1
        path = Path(self.folder.name) / str(len(self.files) % 3)
        self.compare()
        self.files = [each for each in self.files if each[0] != path]
        self.pool.submit(held.matrix.save, path).result(60)
        self.files.append((path, held.values))

    @rule(target=matrices, number=st.integers(0, 2))
    def load(self, number: int) -> Held:
        """What was saved, from two threads at once."""
        CALLS["calls"] += 1
        if not self.files:
            values = cases.trits(1, 1)
            return Held(ternops.pack(values), values)
        path, values = self.files[number % len(self.files)]
        both = [self.pool.submit(ternops.load, path) for _ in range(2)]
        first, second = (each.result(60) for each in both)
        assert isinstance(first, ternops.TernaryMatrix)
        assert isinstance(second, ternops.TernaryMatrix)
        assert np.array_equal(first.to_trits(), second.to_trits())
        return Held(first, values)

    @rule(count=st.integers(1, 5))
    def limit_threads(self, count: int) -> None:
        """While others multiply."""
        CALLS["calls"] += 1
        ternops.set_num_threads(min(count, 2 * self.threads))

    @rule(held=matrices)
    def unpack(self, held: Held) -> None:
        """What it stands for."""
        CALLS["calls"] += 1
        assert np.array_equal(held.matrix.to_trits(), held.values)
        assert np.array_equal(np.asarray(held.matrix), held.values.astype(np.float32))

    @invariant()
    def nothing_has_failed(self) -> None:
        """Of what is done by now."""
        for future, _ in getattr(self, "under_way", []):
            if future.done():
                assert future.exception() is None

    def teardown(self) -> None:
        """As at the end of a program."""
        if hasattr(self, "pool"):
            try:
                self.compare()
            finally:
                self.pool.shutdown()
                ternops.set_num_threads(self.threads)
                self.folder.cleanup()
