"""Blocks of Q4_0, Q8_0, IQ4_NL, MXFP4 and NVFP4 against the gguf package's own readers."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from ternops.decoder.formats.gguf_levels import LAYOUTS, check_kind, decode
from ternops.decoder.formats.gguf_types import kind_of
from ternops.quantizers import MAX_LEVEL, holders
from tests.helpers import cases

KIND = pytest.mark.parametrize("name", LAYOUTS)


def number(name):
    return gguf.GGMLQuantizationType[name]


def check(name, data, rows, columns):
    """Value times scale is what gguf reads, and values are levels."""
    kind = kind_of(number(name))
    values, scales, levels = decode(kind, data.reshape(-1), (rows, columns))
    with np.errstate(over="ignore"):
        dense = values.reshape(*scales.shape, -1) * scales[..., None]
        theirs = gguf.dequantize(data.reshape(rows, -1), number(name))
    assert np.array_equal(dense.reshape(rows, columns), theirs.reshape(rows, columns))
    assert set(np.unique(values)) <= set(levels)
    assert values.dtype == np.int8
    assert scales.dtype == np.float32
    return values, scales


@KIND
def test_all_codes(name):
    """Blocks of any bytes, whose scales are finite."""
    kind, layout = kind_of(number(name)), LAYOUTS[name]
    random = np.random.default_rng(1)
    data = random.integers(0, 256, (7, 256 // kind.weights, kind.size), np.uint8)
    if layout.scales == 2:
        scales = random.standard_normal((7, 256 // kind.weights)).astype(np.float16)
        data[:, :, :2] = scales[..., None].view(np.uint8)
    elif name == "MXFP4":
        data[:, :, 0] = random.integers(0, 255, data.shape[:2])
    else:
        data[:, :, :4] &= 0x7F
    values, _ = check(name, data, 7, 256)
    assert set(np.unique(values)) == set(layout.levels) or name == "Q8_0"


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "MXFP4"])
def test_what_the_package_writes(name):
    """Its own quantiser's blocks, some of zeros."""
    w = cases.floats(9, 512).astype(np.float32)
    w[2], w[4, 32:64] = 0, 0
    data = gguf.quantize(w, number(name))
    values, scales = check(name, data, 9, 512)
    if name == "Q4_0":  # of both signs, the largest weight of a block always -8
        assert (scales < 0).any()
        assert (scales > 0).any()
        least = values.reshape(9, -1, 32).min(axis=2)
        assert (least[scales != 0] == -8).all()


def test_every_scale():
    """All E8M0 and E4M3 bytes, NaN refused in the one and 0 in the other."""
    kind = kind_of(number("MXFP4"))
    data = np.full((255, 1, 17), 0x77, np.uint8)
    data[:, 0, 0] = np.arange(255)
    check("MXFP4", data, 255, 32)
    data[7, 0, 0] = 255
    with pytest.raises(ValueError, match=r"^holds the scale nan in row 7, expected finite ones$"):
        decode(kind, data.reshape(-1), (255, 32))
    data = np.full((32, 1, 36), 0x77, np.uint8)
    data[:, 0, :4] = np.arange(128).reshape(32, 4)
    _, scales = check("NVFP4", data, 32, 64)
    assert scales[-1, -1] == 0


def test_other_types_are_refused():
    """Those with a minimum a block, of 32 levels, and others."""
    for name, reason in (
        ("Q4_1", "has a minimum beside the scale of each block"), ("Q5_0", "has 32 levels"),
        ("Q6_K", "is no type of levels"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} {reason}, expected Q4_0, Q8_0, IQ4_NL, "):
            check_kind(kind_of(number(name)))


def test_levels_that_encodings_hold():
    """Four-bit ones are nibbles. Q8_0 has -128 as well, which its writers never use."""
    for name, layout in LAYOUTS.items():
        if name != "Q8_0":
            assert "nibble" in holders(layout.levels)
    assert LAYOUTS["Q8_0"].levels[1:] == tuple(range(-MAX_LEVEL, MAX_LEVEL + 1))
