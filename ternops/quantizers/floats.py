"""Floats of four bits, their levels as integers: E2M1, E1M2, E3M0, and MX's and NVIDIA's blocks."""

from __future__ import annotations

import numpy as np

from ternops.quantizers.fp8 import E4M3, decode, encode
from ternops.quantizers.integers import absmax
from ternops.quantizers.method import MIN_SCALE, Array, Levels, Method, absmax_of


def _signed(magnitudes: tuple[int, ...]) -> Levels:
    return tuple(sorted({sign * each for each in magnitudes for sign in (-1, 1)}))


#: 0, 0.5, 1, 1.5, 2, 3, 4 and 6, times 2.
E2M1 = _signed((0, 1, 2, 3, 4, 6, 8, 12))
#: 0, 0.25, .., 1.75, times 4: evenly spaced, since the one bit of the exponent is also a leading 1.
E1M2 = _signed((0, 1, 2, 3, 4, 5, 6, 7))
#: 0 and the powers of two from 0.25 to 16, times 4.
E3M0 = _signed((0, 1, 2, 4, 8, 16, 32, 64))

_MX_GROUP, _NV_GROUP = 32, 16
_E2M1_MOST = 6  # of the format's own levels
_EXPONENT_MOST = 2  # of 4 and 6, the greatest in E2M1
#: Significant bits of NVFP4's scale of a matrix: with four of E4M3 a float16 has its eleven.
_MATRIX_BITS = 7


def shared_exponent(groups: Array, levels: Levels) -> Array:
    """MX: X = 2^(floor(log2 max|w|) - 2), half of it for levels times 2.

    What is beyond 6 X becomes 6 X, of max|w| from 6 to 8 times it.
    """
    most = absmax_of(groups)
    _, exponent = np.frexp(most)  # of numbers from 0.5 to 1
    power = np.maximum(exponent - 1 - _EXPONENT_MOST, -127)
    return np.where((most > 0) & np.isfinite(most), np.ldexp(0.5, power), most)


def powers(scales: Array) -> Array:
    """float64 -> float32, powers of two already."""
    return scales.astype(np.float32)


def two_scales(scales: Array) -> Array:
    """NVFP4: each scale as E4M3 times one of the matrix, which makes the largest one 448.

    That one, max|w| / (6 * 448), is rounded up to seven significant bits, so that each product has
    eleven, as a float16 has. A scale that E4M3 would round to 0 becomes its least number.
    """
    most = float(scales.max(initial=MIN_SCALE))
    fraction, power = np.frexp(most / E4M3.most)
    matrix = np.ldexp(np.ceil(np.ldexp(fraction, _MATRIX_BITS)), power - _MATRIX_BITS)
    codes = np.maximum(encode(scales / matrix, E4M3), 1)
    return np.asarray(decode(codes, E4M3) * np.float64(matrix)).astype(np.float32)


_FP4 = "Liu et al., LLM-FP4, arXiv 2310.16836, section 3"

FP4, E1M2_METHOD, E3M0_METHOD = (
    Method(name=name, paper=f"{_FP4} ({form})", levels={len(levels): levels}, scale=absmax)
    for name, form, levels in (
        ("fp4", "E2M1", E2M1),
        ("e1m2", "E1M2", E1M2),
        ("e3m0", "E3M0", E3M0),
    )
)
MXFP4 = Method(
    name="mxfp4",
    paper="OCP Microscaling Formats (MX) Specification 1.0, sections 5.3.3 and 6.3; Rouhani et "
    "al., arXiv 2310.10537, algorithm 1",
    levels={len(E2M1): E2M1},
    group=_MX_GROUP,
    is_fixed=True,
    scale=shared_exponent,
    store=powers,
)
NVFP4 = Method(
    name="nvfp4",
    paper="NVIDIA, Pretraining Large Language Models with NVFP4, arXiv 2509.25149, section 2",
    levels={len(E2M1): E2M1},
    group=_NV_GROUP,
    is_fixed=True,
    scale=absmax,
    store=two_scales,
)
