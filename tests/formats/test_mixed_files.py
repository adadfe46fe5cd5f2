"""Packed model files whose matrices differ in encoding, group and levels, or are floats."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.formats import convert as convert_module
from ternops.decoder.formats.loading import TINY, open_checkpoint
from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.weights import HalfMatrix
from tests.helpers import cases
from tests.helpers.small_models import TYPES, mixed_weights

TOKENS = [1, 5, 300, 42, 7, 99]


class Mixed:
    """A checkpoint with other matrices."""

    def __init__(self, checkpoint, weights):
        self._checkpoint, self._weights = checkpoint, weights

    def __getattr__(self, name):
        return getattr(self._checkpoint, name)

    def matrix(self, layer, name, encoding):
        return self._weights.layers[layer].linear[name]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A file, and the matrices that are in it."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.safetensors"
    weights = mixed_weights(open_checkpoint().config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            convert_module, "open_checkpoint", lambda *_, **__: Mixed(open_checkpoint(), weights)
        )
        convert_module.convert(TINY, path, "base3")
    return path, weights


def test_what_is_written_is_read(mixed):
    path, weights = mixed
    file = PackedFile(path)
    for number, layer in enumerate(weights.layers):
        for name, right in layer.linear.items():
            found = file.matrix(number, name, "base3")
            if isinstance(right, HalfMatrix):
                assert cases.same_bits(found.bits, right.bits)
                continue
            assert (found.encoding, found.group, found.levels) == (
                right.encoding, right.group, right.levels,
            )  # fmt: skip
            assert cases.same_bits(found.to_trits(), right.to_trits())
            assert cases.same_bits(found.scale, right.scale)
    assert "layers.0.k.levels" in list(file.verify())


def test_the_decoder_runs_it(mixed):
    path, weights = mixed
    model = Model.from_pretrained(path)
    assert {each.encoding for each in model.types} == {kind[0] for kind in TYPES}
    assert model.weights.linear_bytes >= weights.linear_bytes  # scales become a group's
    expected = reference.logits(model, TOKENS)
    assert cases.same_bits(model.logits(TOKENS), expected)
    # Another encoding is for the matrices that it can hold.
    other = Model.from_pretrained(path, weights="two_bit")
    assert "base3" not in other.encoding
    assert cases.same_bits(other.logits(TOKENS), reference.logits(other, TOKENS))


def test_floats_of_all_matrices(mixed):
    """For the baseline."""
    model = Model.from_pretrained(mixed[0], weights="fp16")
    assert model.encoding == "fp16"
    assert cases.same_bits(model.logits(TOKENS), reference.logits(model, TOKENS))


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([3, -1, 1], r"levels: levels=\(3, -1, 1\): expected ascending integers"),
        ([-128, 5], r"levels: levels=\(-128, 5\): expected integers from -127 to 127"),
    ],
)
def test_levels_that_cannot_be(mixed, tmp_path, levels, words):
    raw = bytearray(mixed[0].read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    name = next(each for each in sorted(header) if each.endswith(".levels"))
    first, last = header[name]["data_offsets"]
    bad = np.array(levels, np.int8)
    raw[start + first : start + last] = np.pad(bad, (0, 64 - len(bad)), "edge").tobytes()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=words):
        PackedFile(path)
