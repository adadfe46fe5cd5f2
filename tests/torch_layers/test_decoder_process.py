"""Passes in a process that has other defaults, a signal handler, or a fork meanwhile."""

from __future__ import annotations

import copy
import os
import signal
import threading
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
pytest.importorskip("transformers", reason="transformers is not installed (make test-peers)")
from transformers.cache_utils import DynamicCache  # noqa: E402

from ternops.torch import decoder_forward  # noqa: E402
from tests.torch_layers.pairs import CACHE, assert_near, ids, logits  # noqa: E402

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_default_dtypes(pair, passes, dtype):
    expected = logits(pair[1], ids())
    ours = copy.deepcopy(pair[1])  # which reads its weights anew
    try:
        torch.set_default_dtype(dtype)
        found = logits(ours, ids())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
    assert passes == [8, 8]


def test_another_default_device(pair, passes):
    expected = logits(pair[1], ids())
    ours, tokens, positions = copy.deepcopy(pair[1]), ids(), torch.arange(8)[None]
    cache = DynamicCache()
    with torch.device("meta"):
        found = logits(ours, tokens, position_ids=positions, **{CACHE: cache})
        assert cache.layers[0].keys.is_cpu
    assert torch.equal(found, expected)
    assert passes == [8, 8]


@pytest.mark.timeout(120)
def test_a_call_in_the_middle_of_a_pass(monkeypatch, pair, passes):
    """As of a signal handler, whose thread goes on only when it has returned."""
    ours, run, found = pair[1], decoder_forward.Decoder.run, []
    expected = logits(ours, ids()), logits(pair[0], ids(7))

    def interrupted(self, x, pages):
        found.append(logits(ours, ids(7)))
        return run(self, x, pages)

    monkeypatch.setattr(decoder_forward.Decoder, "run", interrupted)
    assert torch.equal(logits(ours, ids()), expected[0])
    assert_near(found[0], expected[1])
    assert passes == [8, 8]
    monkeypatch.setattr(decoder_forward.Decoder, "run", run)
    logits(ours, ids())
    assert passes == [8] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_in_the_middle_of_a_pass(monkeypatch, pair, passes):
    """Of another thread, which the child has not, but whose locks are held there."""
    inner, run = pair[1].model, decoder_forward.Decoder.run
    with torch.no_grad():
        expected = inner(ids()).last_hidden_state
    is_held, is_over = threading.Event(), threading.Event()

    def waits(self, x, pages):
        if threading.current_thread() is thread:
            is_held.set()
            is_over.wait()
        return run(self, x, pages)

    monkeypatch.setattr(decoder_forward.Decoder, "run", waits)
    thread = threading.Thread(target=logits, args=(pair[1], ids()))
    thread.start()
    is_held.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(60)
            with torch.no_grad():
                found = inner(ids()).last_hidden_state
            status = 0 if torch.equal(found, expected) and passes == [8, 8] else 2
        finally:
            os._exit(status)
    is_over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
