"""Blocks of Q4_0, Q8_0, IQ4_NL, MXFP4 and NVFP4 against the gguf package's own readers."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from ternops import pack, set_num_threads
from ternops.decoder.formats.gguf_levels import LAYOUTS, check_kind, decode
from ternops.decoder.formats.gguf_types import kind_of
from ternops.decoder.formats.straight import pack_levels
from ternops.memory import Arena
from ternops.quantizers import holders
from tests.helpers import cases, gguf_files, internals

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
    values, _ = check(name, gguf_files.random_blocks(name, 40, 256), 40, 256)
    assert set(np.unique(values)) == set(LAYOUTS[name].levels)


@KIND
def test_packed_as_they_are(eager_threads, name):
    """The bytes and the scales that packing the values gives, in any order of rows, for columns of
    every remainder and more than are worked on at once."""
    kind = kind_of(number(name))
    for rows, columns in ((1, 64), (33, 1536), (18, 2624), (40, 5376)):
        data = gguf_files.random_blocks(name, rows, columns).reshape(-1)
        values, scales, levels = decode(kind, data, (rows, columns))
        for order in (None, np.random.default_rng(rows).permutation(rows)):
            with set_num_threads(1 if order is None else 3):
                found = pack_levels(kind, data, (rows, columns), Arena(), order)
            moved = slice(None) if order is None else order
            expected = pack(values[moved], scales[moved], LAYOUTS[name].encoding, levels)
            assert found is not None
            one, other = internals.packed(found), internals.packed(expected)
            assert (one.encoding, one.levels, one.group) == (
                other.encoding, other.levels, other.group
            )  # fmt: skip
            assert cases.same_bits(one.bytes, other.bytes)
            assert cases.same_bits(np.asarray(one.factors), np.asarray(other.factors))


@KIND
def test_damaged_ones_are_not_packed(name):
    """A scale that is not finite, where there is one, and -128, wherever they are."""
    kind, layout = kind_of(number(name)), LAYOUTS[name]
    for row, block in ((0, 0), (16, 3), (32, 9)):
        data = gguf_files.random_blocks(name, 33, 640)
        if layout.scales == 2:
            data[row, block, :2] = np.frombuffer(np.float16(-np.inf).tobytes(), np.uint8)
        elif name == "MXFP4":
            data[row, block, 0] = 255
        else:
            data[row, block, :4] = 0xFF  # NaN, which stands for 0
            assert pack_levels(kind, data.reshape(-1), (33, 640), Arena()) is not None
            continue
        assert pack_levels(kind, data.reshape(-1), (33, 640), Arena()) is None
        with pytest.raises(ValueError, match=rf"^holds the scale .* in row {row}, expected finite"):
            decode(kind, data.reshape(-1), (33, 640))
        if name == "Q8_0":
            for at in (2, 9, 33):
                data = gguf_files.random_blocks(name, 33, 640)
                data[row, block, at] = 0x80
                assert pack_levels(kind, data.reshape(-1), (33, 640), Arena()) is None
                with pytest.raises(ValueError, match=rf"^holds -128 in row {row}, expected -127 "):
                    decode(kind, data.reshape(-1), (33, 640))


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
    """Each has what its layout names."""
    for layout in LAYOUTS.values():
        assert layout.encoding in holders(layout.levels)
