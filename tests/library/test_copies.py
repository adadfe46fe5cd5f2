"""Copies and pickles: right after the original is gone, or refused; no stale addresses."""

from __future__ import annotations

import copy
import gc
import json
import multiprocessing
import pickle

import numpy as np
import pytest

import ternops
from ternops.decoder import Batch, Config, Model, Session
from ternops.decoder.weights import random_weights
from tests.helpers import cases, internals, processes

CONFIG = Config(
    hidden=100, ffn=70, layers=2, heads=3, kv_heads=1, head_dim=34, vocabulary=130, context=64
)
TOKENS = [3, 1, 129]


def litter():
    """Take and fill the memory that has just been given back."""
    return [np.full(1 << size, 9, np.uint8) for size in range(6, 22) for _ in range(20)]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fp16", "int8", "screened"])
@pytest.mark.parametrize("kind", ["two_bit", "base3", "tl2", "fp16"])
def test_a_pickled_model_says_the_same(kind, head):
    """The same logits once the original is gone, for every kind of weights, head and cache."""
    model = Model(random_weights(CONFIG, kind), threads=2, head=head, cache="int8")
    expected, data = model.logits(TOKENS), pickle.dumps(model)
    del model
    gc.collect()
    kept = litter()
    other = pickle.loads(data)
    assert cases.same_bits(other.logits(TOKENS), expected)
    assert (other.threads, other.head.kind, other.cache) == (2, head, "int8")
    assert other.weights.head is other.weights.embedding
    del kept


def test_the_default_number_of_threads_is_that_of_the_other_process():
    """What nobody chose is chosen anew there."""
    state = pickle.dumps(Model(random_weights(CONFIG, "two_bit")))
    assert pickle.loads(state).adapts
    assert not pickle.loads(pickle.dumps(Model(random_weights(CONFIG, "two_bit"), 1))).adapts


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copied_model_is_the_model(duplicate):
    """Nothing of it changes, so that it is kept, not doubled."""
    model = Model(random_weights(CONFIG, "two_bit"), threads=1)
    assert duplicate(model) is model
    assert duplicate({"of": model})["of"] is model


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_holds_addresses_is_refused(duplicate):
    """Sessions, batches, caches, workspaces, teams: a TypeError of one line."""
    from ternops.scratch import Scratch
    from ternops.team import TEAM

    model = Model(random_weights(CONFIG, "two_bit"), threads=1)
    session, batch = Session(model), Batch(model, 2)
    matrix = ternops.pack(cases.trits(5, 7))
    held = session.cache, internals.lone_workspace(session), TEAM, internals.packed(matrix)
    for each in (session, batch, Scratch(), *held):
        words = rf"^a {type(each).__name__} cannot be copied or pickled; make another one$"
        with pytest.raises(TypeError, match=words):
            duplicate(each)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copied_matrix_outlives_its_original(duplicate):
    """The same product afterwards, for a transpose, too."""
    x = cases.activations(7)
    for transposed in (False, True):
        matrix = ternops.pack(cases.trits(5, 7), cases.scales(5)["rows"])
        matrix = matrix.T.T if not transposed else matrix.T
        product = (lambda m: x @ m) if transposed else (lambda m: m @ x)
        expected = product(matrix)
        other = duplicate(matrix)
        del matrix
        gc.collect()
        kept = litter()
        assert cases.same_bits(product(other), expected)
        del kept


@pytest.mark.parametrize("misplaced", [0, 1])
@pytest.mark.parametrize("encoding", ["two_bit", "tl2", "nibble"])
def test_buffers_beside_the_pickle(encoding, misplaced):
    """Protocol 5, as dask and joblib send arrays: what receives them lies where it may, read-only,
    and the bytes of the original are lent, not copied."""
    matrix = ternops.pack(
        cases.trits(37, 96, encoding=encoding), cases.scales(37)["rows"], encoding
    )
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(matrix, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 1000
    assert any(np.shares_memory(each, internals.packed(matrix).bytes) for each in buffers)
    received = []
    for each in buffers:
        size = each.raw().nbytes
        memory = np.empty(size + 65, np.uint8)
        start = -memory.ctypes.data % 64 + misplaced
        memory[start : start + size] = np.frombuffer(each, np.uint8)
        received.append(memoryview(memory[start : start + size]).toreadonly())
    other = pickle.loads(data, buffers=received)
    x = cases.floats(3, 96)
    assert cases.same_bits(x @ other.T, x @ matrix.T)
    assert cases.same_bits(other.to_dense(), matrix.to_dense())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_sent_to_another_process(method):
    """Matrices of every kind and a model, as multiprocessing sends them from Python 3.14 on, joblib
    and dask always."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    settings = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    done = processes.program("sent_to_processes", method, json.dumps(settings))
    assert done.returncode == 0, done.stderr
