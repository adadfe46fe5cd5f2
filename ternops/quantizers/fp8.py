"""Floats of eight bits, in NumPy: E4M3 and E5M2.

OCP 8-bit Floating Point Specification (OFP8) 1.0, section 5; arXiv 2209.05433, table 1. E4M3 has
no infinity: its exponent of ones is used, but for the two codes of NaN; the largest number is 448.
E5M2 is the upper byte of a float16; the largest number is 57344.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: The name of the encoding.
ENCODING = "fp8"

Codes = npt.NDArray[np.uint8]


class Float8(NamedTuple):
    """exponent, mantissa: bits of each; most: the largest finite number; nan: a code of it."""

    name: str
    exponent: int
    mantissa: int
    most: float
    nan: int

    @property
    def largest(self) -> int:
        """The code of the largest finite number."""
        return int(encode(np.array(self.most), self))

    @property
    def bias(self) -> int:
        return int(2 ** (self.exponent - 1)) - 1


E4M3 = Float8("e4m3", 4, 3, 448.0, 0x7F)
E5M2 = Float8("e5m2", 5, 2, 57344.0, 0x7E)
FORMATS = {each.name: each for each in (E4M3, E5M2)}


def encode(x: npt.NDArray[np.floating], kind: Float8) -> Codes:
    """Floats -> codes: the nearest number, of two equally near the one whose last bit is 0.

    What is beyond the largest number, infinity too, becomes that one; NaN becomes NaN. A zero keeps
    its sign.
    """
    wide = np.asarray(x, np.float64)
    magnitude = np.minimum(np.abs(wide), kind.most)
    # The power of two below each, and with it how far apart the numbers there are; those below
    # the least normal number are as far apart as above it.
    _, exponent = np.frexp(np.where(np.isnan(magnitude), 0, magnitude))
    exponent = np.where(magnitude > 0, np.maximum(exponent - 1, 1 - kind.bias), 1 - kind.bias)
    steps = np.rint(np.ldexp(magnitude, kind.mantissa - exponent))
    # Counted from 0: 2**mantissa numbers to each exponent, a carry goes into the next.
    codes = steps + (exponent + kind.bias - 1) * 2.0**kind.mantissa
    codes = np.where(np.isnan(wide), kind.nan, codes).astype(np.uint8)
    return np.asarray(codes | np.signbit(wide).astype(np.uint8) << np.uint8(7))


def decode(codes: Codes, kind: Float8) -> npt.NDArray[np.float32]:
    """Codes -> float32, exact; NaN of the codes of NaN, infinity of E5M2's."""
    return np.asarray(_table(kind)[codes])


def _table(kind: Float8) -> npt.NDArray[np.float32]:
    """What the 256 codes stand for."""
    code = np.arange(128)
    exponent, mantissa = code >> kind.mantissa, code & (1 << kind.mantissa) - 1
    one = np.where(exponent > 0, 1 << kind.mantissa, 0)  # the leading bit, but of subnormals
    power = np.maximum(exponent, 1) - kind.bias - kind.mantissa
    half = np.ldexp((one + mantissa).astype(np.float32), power)
    if kind is E5M2:
        half[0x7C:] = np.inf, np.nan, np.nan, np.nan
    else:
        half[0x7F] = np.nan
    return np.concatenate([half, -half])
