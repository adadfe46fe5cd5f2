"""A decoder within another program, which has embedding and head, and reads keys and values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ternops.decoder import Session
from ternops.decoder.cache import Cache
from ternops.decoder.cache_floats import DTYPES, read_floats, write_floats
from ternops.decoder.loaded import LoadedModel
from ternops.decoder.session import WorkspacePool
from ternops.decoder.weights import HalfMatrix
from tests.helpers import cases
from tests.helpers.small_models import small_config, small_model


@pytest.mark.parametrize("tokens", [1, 2, 70])
def test_vectors_in_place_of_tokens(tokens):
    """The same bits, without an embedding and a head, whose memory is another's."""
    model = small_model(small_config("hidden 24", "bitnet", context=90))
    weights = model.weights
    none = HalfMatrix(np.zeros((0, 32), np.uint16), 24, is_bf16=False)
    config = dataclasses.replace(weights.config, vocabulary=1)
    inner = LoadedModel(
        dataclasses.replace(weights, config=config, embedding=none, head=none), model.threads
    )
    ids = np.random.default_rng(tokens).integers(0, 33, tokens)
    states = []
    for each in (model, inner):
        cache = Cache(each.config, each.cache)
        cache.reserve(tokens)
        workspace = WorkspacePool(each)(tokens)
        if each is inner:
            assert workspace.inputs.shape[0] >= tokens
            workspace.inputs[:tokens] = weights.embedding.to_dense()[ids]
            workspace.place(0, np.zeros(tokens, np.int64), 0, cache)
        else:
            workspace.place(0, ids, 0, cache)
        found = workspace.run_to_states(tokens, range(tokens), cache.layer_step)
        states.append(found.copy())
    assert cases.same_bits(*states)


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("layout", ["bitnet", "qwen3"])
def test_keys_and_values_go_out_and_in(layout, kind):
    model = small_model(small_config("hidden 200", layout, context=200), cache=kind)
    config, session = model.config, Session(model)
    tokens = np.random.default_rng(2).integers(0, 33, 150).tolist()
    session.read(tokens)
    whole = read_floats(session.cache, config, kind, 150)
    shape = config.layers, config.kv_heads, 150, config.head_dim
    for each in whole:
        assert (each.shape, each.dtype) == (shape, DTYPES[kind])
        # No position or head is another one's, and none is left out.
        assert len(np.unique(each[1].reshape(-1, config.head_dim), axis=0)) == 150 * 3
    for count in (1, 15, 64, 70, 128):
        part = read_floats(session.cache, config, kind, count)
        for one, other in zip(part, whole, strict=True):
            assert np.array_equal(one, other[:, :, :count])
        other = Session(model)
        other.read(tokens[::-1])
        write_floats(other.cache, config, kind, *part)
        other.tokens[:] = tokens[:count]
        session.position = count
        more = tokens[count : count + 20]
        assert cases.same_bits(other.read(more), session.read(more))
        session.position = 0
        session.read(tokens)
