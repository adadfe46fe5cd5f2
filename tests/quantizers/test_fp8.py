"""E4M3 and E5M2 against a table of all their codes and against every float16."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ternops.quantizers.fp8 import E4M3, E5M2, FORMATS, decode, encode
from tests.helpers import cases

FORMAT = pytest.mark.parametrize("kind", FORMATS.values(), ids=list(FORMATS))


def value(code, kind):
    """What a code stands for, bit by bit; None for infinity and NaN."""
    sign = -1 if code & 0x80 else 1
    exponent, mantissa = (code & 0x7F) >> kind.mantissa, code & (2**kind.mantissa - 1)
    if kind is E4M3 and code & 0x7F == 0x7F:
        return None
    if kind is E5M2 and exponent == 31:
        return None
    part = Fraction(mantissa, 2**kind.mantissa)
    if exponent == 0:
        return sign * part * Fraction(2) ** (1 - kind.bias)
    return sign * (1 + part) * Fraction(2) ** (exponent - kind.bias)


@FORMAT
def test_all_codes(kind):
    codes = np.arange(256, dtype=np.uint8)
    found = decode(codes, kind)
    assert found.dtype == np.float32
    for code in range(256):
        exact = value(code, kind)
        if exact is not None:
            assert Fraction(float(found[code])) == exact
            assert np.signbit(found[code]) == (code >= 128)
        else:
            assert not np.isfinite(found[code])
    finite = found[np.isfinite(found)]
    assert finite.max() == kind.most == -finite.min()
    assert np.isnan(decode(np.array([kind.nan], np.uint8), kind))
    assert (encode(found[np.isfinite(found)], kind) == codes[np.isfinite(found)]).all()


def test_what_the_specification_says():
    """OFP8, table 1: bias, largest and least numbers."""
    assert (E4M3.bias, E5M2.bias) == (7, 15)
    for kind, most, normal, least in (
        (E4M3, 448, 2.0**-6, 2.0**-9), (E5M2, 57344, 2.0**-14, 2.0**-16),
    ):  # fmt: skip
        found = decode(np.arange(128, dtype=np.uint8), kind)
        assert found[np.isfinite(found)].max() == most
        assert found[1] == least
        assert found[1 << kind.mantissa] == normal
    codes = np.arange(256, dtype=np.uint8)
    halves = (codes.astype(np.uint16) << 8).view(np.float16)
    assert cases.same_bits(decode(codes, E5M2), halves.astype(np.float32))
    # Seven bits further up in a float16, the magnitude is the value times 2^-8.
    magnitude = (codes[:127].astype(np.uint16) << 7).view(np.float16).astype(np.float32)
    assert cases.same_bits(decode(codes[:127], E4M3), magnitude * 256)


@FORMAT
def test_rounding_between_all_neighbours_and_of_many_float16(kind):
    """To the nearest, of two the one with an even code; beyond the ends, the last one."""
    known = decode(np.arange(128, dtype=np.uint8), kind).astype(np.float64)
    known = known[np.isfinite(known)]
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)][::3].astype(np.float64)
    middles = (known[:-1] + known[1:]) / 2
    middles = np.concatenate([middles, np.nextafter(middles, 1e9), np.nextafter(middles, -1e9)])
    for x in (every, middles, -middles):
        found = encode(x, kind)
        places = np.abs(x)[:, None] - known
        exact = np.abs(places) == np.abs(places).min(axis=1, keepdims=True)
        expected = np.where(exact, np.arange(len(known)) % 2, 9).argmin(axis=1)
        assert ((found & 0x7F) == expected).all()
        assert ((found >= 128) == np.signbit(x)).all()


@FORMAT
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_ends(kind, dtype):
    x = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 60000, -60000], dtype)
    found = decode(encode(x, kind), kind)
    last = kind.most
    assert cases.same_bits(found, np.array([last, -last, np.nan, 0, -0.0, last, -last], np.float32))
    tiny = np.array([1e-45, -1e-45, 5e-324], np.float64)
    assert not decode(encode(tiny, kind), kind).any()
