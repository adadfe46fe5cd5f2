"""A packed file whose matrices have encodings of their own, and the decoder that reads it."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.calibration import activations
from ternops.decoder.formats.convert_allocated import allocate_model, shares
from ternops.decoder.formats.loading import TINY, open_checkpoint
from ternops.decoder.formats.packed import PackedFile
from tests.helpers import cases

TOKENS = [1, 5, 300, 42, 7, 99]


@pytest.fixture(scope="module")
def allocated(tmp_path_factory):
    """Path and allocation of the tiny model with signs in some matrices, trits in others, and more
    levels."""
    path = tmp_path_factory.mktemp("allocated") / "tiny.safetensors"
    checkpoint = open_checkpoint()
    seen = activations(checkpoint, iter([list(range(2, 40))]))
    return path, allocate_model(checkpoint, TINY, path, 1.6, seen)


def test_both_encodings_are_in_the_file(allocated):
    path, found = allocated
    assert found.bits <= 1.6
    assert {"one_bit", "base3"} <= set(shares(found))
    file = PackedFile(path)
    for name, each in found.chosen.items():
        layer, key = int(name.split(".")[1]), name.split(".")[2]
        matrix = file.matrix(layer, key, "base3")
        assert matrix.encoding == each.option.encoding
        assert cases.same_bits(matrix.to_dense(), each.to_dense())
    assert len(list(file.verify())) > len(found.chosen)


@pytest.mark.parametrize("weights", ["ternary", "base3", "two_bit"])
def test_the_decoder_runs_it(allocated, weights):
    path, _ = allocated
    model = Model.from_pretrained(path, weights=weights, threads=2)
    expected = reference.logits(model, TOKENS)
    assert cases.same_bits(model.logits(TOKENS), expected)
    base3 = Model.from_pretrained(path, weights="base3", threads=1)
    assert cases.same_bits(base3.logits(TOKENS), expected)


def test_signs_take_less_of_the_file(allocated, tmp_path):
    path, found = allocated
    whole = tmp_path / "whole.safetensors"
    assert set(shares(allocate_model(open_checkpoint(), TINY, whole, 9))) == {"base3"}
    saved = sum(
        0.6 / 8 * each.values.size
        for each in found.chosen.values()
        if each.option.encoding == "one_bit"
    )
    assert whole.stat().st_size - path.stat().st_size == pytest.approx(saved, rel=0.1)


def test_trits_of_a_ternary_model_are_found_again(tmp_path):
    """With bits enough the least error is none: codes and scales are the model's own."""
    path = tmp_path / "again.safetensors"
    allocate_model(open_checkpoint(), TINY, path, 9)
    ours, theirs = Model.from_pretrained(path), Model.from_pretrained()
    np.testing.assert_allclose(ours.logits(TOKENS), theirs.logits(TOKENS), rtol=2e-3, atol=2e-3)


def test_too_few_bits_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"bits=0.5: expected 1\.\d+ at least, scales included"):
        allocate_model(open_checkpoint(), TINY, tmp_path / "x", 0.5)
    assert not list(tmp_path.iterdir())
