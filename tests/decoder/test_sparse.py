"""What ReLU^2 makes 0 is left out, and no bit of a logit changes."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from ternops.decoder import Model, Session, reference
from ternops.decoder.weights import Layer
from ternops.matrix import TernaryMatrix
from ternops.packed import pack_values
from tests.helpers import cases
from tests.helpers.small_models import SIZES, small_config, small_model

TOKENS = [1, 5, 0, 32, 7, 7, 30]


def decoded(model, tokens=TOKENS):
    """Logits of single tokens, and the session that made them."""
    session = Session(model)
    return np.stack([session.step(token).copy() for token in tokens]), session


def with_matrices(model, change, scale=None):
    """The same weights, where change(name, values) gives a matrix's values, scaled as asked."""
    layers = []
    for layer in model.weights.layers:
        linear = {}
        for name, matrix in layer.linear.items():
            values = change(name, matrix.to_trits().copy())
            factor = np.asarray(matrix.scale if scale is None else scale, np.float32)
            linear[name] = TernaryMatrix(pack_values(values, factor, matrix.encoding))
        layers.append(Layer(linear, layer.norms))
    return replace(model.weights, layers=layers)


@pytest.mark.parametrize("encoding", cases.BLOCKS)
@pytest.mark.parametrize("size", SIZES)
def test_the_bits_are_those_of_numpy(size, encoding):
    """For any number of threads, whether all, some or none is left out."""
    plain = small_model(small_config(size, "bitnet"), encoding)
    expected = reference.logits(plain, TOKENS)
    for kind in ("always", "auto", "never"):
        for threads in (1, 2, 5):
            model = Model(plain.weights, threads, sparse=kind)
            found, session = decoded(model)
            assert cases.same_bits(found, expected), (kind, threads)
            rows, columns = session.shares_read
            assert 0 <= rows <= 1
            assert 0 <= columns <= 1
            assert (session.bytes_saved > 0) == (rows < 1 or columns < 1)
            if kind == "always" and model.config.ffn > 1:
                assert rows < 1
                assert columns < 1


@pytest.mark.parametrize("encoding", ["two_bit", "base3"])
@pytest.mark.parametrize("what", ["no gate", "every gate", "no up", "no row of down"])
def test_the_ends(what, encoding):
    """Lists of nothing and of everything."""

    def change(name, values):
        if (what, name) in (("no gate", "gate"), ("no up", "up"), ("no row of down", "down")):
            values[:] = 0
        if what == "every gate" and name in ("gate", "up"):
            # Rows that agree with a token's signs: gates are positive, and so is what they gate.
            values[:] = np.where(values == 0, 1, np.abs(values))
        return values

    plain = small_model(small_config("hidden 100", "bitnet"), encoding)
    weights = with_matrices(plain, change)
    expected = reference.logits(Model(weights, 1), TOKENS)
    found, session = decoded(Model(weights, 2, sparse="always"))
    assert cases.same_bits(found, expected)
    if what in ("no gate", "no up"):
        assert session.shares_read[1] == 0
    if what == "no gate":
        assert session.shares_read[0] == 0


@pytest.mark.parametrize("scale", [1e-30, 1e20, 3e38])
def test_scales_of_any_size(scale):
    """Of all matrices."""
    plain = small_model(small_config("hidden 200", "bitnet"), "base3")
    weights = with_matrices(plain, lambda name, values: values, scale)
    with np.errstate(all="ignore"):
        found = [decoded(Model(weights, 2, sparse=kind))[0] for kind in ("never", "always")]
    assert cases.same_bits(*found)


def test_where_a_product_overflows_nothing_is_left_out():
    """0 times infinity is NaN: of a row whose gate is 0, while all that are not stay finite."""
    plain = small_model(small_config("hidden 200", "bitnet"), "base3")

    def change(name, values):
        # One gate of a single weight each; the other rows of `up` have sums of many.
        if name in ("gate", "up"):
            values[0] = np.arange(values.shape[1]) == 0
        if name == "gate":
            values[1:] = 0
        return values

    weights = with_matrices(plain, change)
    scale = np.asarray(np.float32(1.2e37))
    for layer in weights.layers:
        up = layer.linear["up"].to_trits()
        layer.linear["up"] = TernaryMatrix(pack_values(up, scale, "base3"))
    found = {kind: decoded(Model(weights, 2, sparse=kind))[0] for kind in ("never", "always")}
    assert np.isnan(found["never"]).any()
    assert cases.same_bits(found["never"], found["always"])


def test_a_checkpoint():
    """Where many are 0, as those of a trained model are."""
    text = range(5, 45)
    models = {kind: Model.from_pretrained(sparse=kind, threads=2) for kind in ("never", "always")}
    found = {kind: decoded(model, text) for kind, model in models.items()}
    assert cases.same_bits(found["never"][0], found["always"][0])
    rows, columns = found["always"][1].shares_read
    assert columns < rows < 0.6
    assert found["never"][1].shares_read == (1, 1)
    assert found["never"][1].bytes_saved == 0


def test_a_wrong_setting_is_named():
    """An unknown word, and "always" where nothing can be left out."""
    with pytest.raises(ValueError, match="sparse='no': expected one of auto, always, never"):
        Model.from_pretrained(sparse="no")
    for encoding, layout, words in (
        ("two_bit", "llama", "the activation is silu, expected relu2"),
        ("tl1", "bitnet", "the weights are tl1, expected an encoding of blocks"),
        ("fp16", "bitnet", "the weights are fp16, expected an encoding of blocks"),
    ):
        plain = small_model(small_config("hidden 100", layout), encoding)
        with pytest.raises(ValueError, match=f"sparse='always': {words}"):
            Model(plain.weights, sparse="always")
        assert Model(plain.weights).sparsity.kind == "never"


def test_a_scale_a_row_is_left_to_the_others():
    """Of `up`; of `down` it is one a result."""
    plain = small_model(small_config("hidden 100", "bitnet"), "two_bit")
    for name in ("up", "down"):
        layers = []
        for layer in plain.weights.layers:
            old = layer.linear[name]
            scale = np.linspace(0.5, 2, old.shape[0]).astype(np.float32)
            changed = TernaryMatrix(pack_values(old.to_trits(), scale, "two_bit"))
            layers.append(Layer({**layer.linear, name: changed}, layer.norms))
        weights = replace(plain.weights, layers=layers)
        if name == "up":
            with pytest.raises(ValueError, match="a scale for each row of up"):
                Model(weights, sparse="always")
            continue
        expected = reference.logits(Model(weights, 1), TOKENS)
        assert cases.same_bits(decoded(Model(weights, 3, sparse="always"))[0], expected)


def test_copies_keep_it():
    """A copy, and what is unpickled."""
    model = Model.from_pretrained(sparse="always", threads=1)
    assert copy.copy(model) is model
    assert pickle.loads(pickle.dumps(model)).sparsity.kind == "always"
    assert model.sparsity.nbytes > 0
