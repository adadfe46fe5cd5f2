"""The one table of shapes and inputs: what every exactness test multiplies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import ternops
from ternops.encodings import ENCODINGS as ALL_ENCODINGS
from ternops.encodings import TERNARY as ALL_TERNARY
from ternops.encodings.blocks import Blocks
from ternops.encodings.panels import Panels
from ternops.kernels.plan import KERNELS

Array = npt.NDArray[Any]

#: The encodings that multiply.
ENCODINGS = tuple(dict.fromkeys(encoding for encoding, _ in KERNELS))
#: Those of blocks.
BLOCKS = tuple(name for name in ENCODINGS if isinstance(ALL_ENCODINGS[name], Blocks))
#: Those that decoders can use.
TERNARY = tuple(name for name in ENCODINGS if name in ALL_TERNARY)
#: Each kernel once: (encoding, the last shape class that it serves).
KINDS = [(encoding, kind) for (encoding, _), kind in
         {(key[0], kernels): key[1] for key, kernels in KERNELS.items()}.items()]  # fmt: skip
#: The shape classes whose kernels multiply a single token only.
OF_ONE_TOKEN = ("one", "stream")
#: The kernels of those, by name, of encodings that are not packed in panels.
GEMVS = {
    multiply.name: multiply
    for (name, kind), (_, multiply) in KERNELS.items()
    if kind in OF_ONE_TOKEN and not isinstance(ALL_ENCODINGS[name], Panels)
}

#: What a code counts in its byte, field after field; and the number of codes.
FACTORS = {
    "two_bit": ((1, 4, 16, 64), 4),
    "base3": ((27, 9, 3, 1, 81), 3),
    "one_bit": ((1, 2, 4, 8, 16, 32, 64, 128), 2),
}

#: Columns that may share a scale, of which `make test` compiles kernels. Sums are added up after
#: 16, 32 or 64 columns, each of which takes up to half a minute to compile for an encoding: every
#: encoding is there with one such unit at least, and every unit with one encoding.
COMPILED_GROUPS = {
    "two_bit": (32, 64, 128, 256), "base3": (64, 128), "one_bit": (64, 128), "three_bit": (16,),
    "nibble": (32,), "eight_bit": (64, 128),
}  # fmt: skip

#: (rows, columns): empty, single, prime, and on both sides of multiples of 4, 24, 64, 256 and 320
#: columns, of 64 rows (a group of the look-up encodings, a panel of the GEMM), and of a panel's
#: 3840 or 4096 columns.
SHAPES = (
    (0, 0), (0, 5), (5, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1), (101, 1), (257, 3),
    (2, 15), (3, 16), (3, 17), (3, 31), (3, 33), (3, 63), (4, 64), (5, 65), (7, 127), (3, 128),
    (2, 129), (4, 191), (8, 192), (5, 193), (3, 251), (3, 252), (3, 253), (2, 254), (1, 255),
    (4, 256), (5, 257), (6, 258), (2, 259), (2, 260), (3, 261), (3, 319), (3, 320), (3, 321),
    (4, 384), (4, 448), (13, 509), (17, 511), (16, 512), (9, 513), (31, 767), (11, 769),
    (64, 1024), (37, 1021), (1, 4099), (23, 2047), (6, 8191), (63, 24), (64, 25), (65, 23),
    (66, 639), (127, 640), (128, 641), (129, 48), (191, 7), (193, 1279), (65, 3839), (70, 3841),
    (130, 4097), (5, 7681),
)  # fmt: skip

#: Tokens of one product: none, one (GEMV), and on both sides of every tile of several.
BATCHES = tuple(range(18))
#: More tokens, up to and beyond those from which on every tier uses its GEMM.
LARGE_BATCHES = (33, 64, 130, 257)
#: More threads than this machine has cores, and than many of the shapes have rows.
THREADS = (1, 2, 3, 7)

#: Terms of a sum that reaches towards the ends of int32. The longest rows whose fields stay in
#: place (kernels.gemv) have 21845 * 32 * 4 = 2796160, twice as many, and of base3
#: 21845 * 64 * 5 columns.
LONG_SUMS = (2**15, 2**15 + 1, 2**17, 2796160, 5592320, 6990400, 6990401, 2**24 - 1)

#: float32 at the ends of its range and of float16's, and on the boundaries between.
SPECIALS = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38,
     65504.0, 65519.996, 65520.0, 5.9604645e-08, 2.9802322e-08, 2.9802326e-08, 6.1035156e-05],
    np.float32,
)  # fmt: skip

#: dtypes of the array operand.
FLOATS = (np.float16, np.float32, np.float64)


def name(shape: tuple[int, ...]) -> str:
    """A shape as a test's name."""
    return "x".join(map(str, shape))


def trits(rows: int, columns: int, seed: int = 0, encoding: str = "two_bit") -> Array:
    """Random int8 of the values that an encoding has, each equally likely."""
    values = np.array(ALL_ENCODINGS[encoding].values, np.int8)
    random = np.random.default_rng((seed, rows, columns))
    kind = np.int8 if len(values) < 128 else np.int16
    return values[random.integers(0, len(values), (rows, columns), kind)]


def both(left: str, right: str) -> str:
    """The one of two encodings whose values the other has too."""
    return min(left, right, key=lambda name: len(ALL_ENCODINGS[name].values))


def groups_of(encoding: str) -> tuple[int, ...]:
    """Those of an encoding's groups that `make test` has."""
    return COMPILED_GROUPS[encoding]


def activations(*shape: int, seed: int = 0) -> Array:
    """Random int8 of the whole range, -128 included."""
    return np.random.default_rng((seed, 1, *shape)).integers(-128, 128, shape, np.int8)


def floats(*shape: int, dtype: npt.DTypeLike = np.float32, seed: int = 0) -> Array:
    """Random normal floats whose rows differ in magnitude."""
    random = np.random.default_rng((seed, 2, *shape))
    values = random.standard_normal(shape)
    if len(shape) > 1:
        values = values * 10.0 ** random.integers(-2, 3, (*shape[:-1], 1))
    return values.astype(dtype)


def scales(rows: int) -> dict[str, Any]:
    """The kinds of scale of a matrix of `rows` rows, by name."""
    random = np.random.default_rng((3, rows))
    return {
        "none": None,
        "scalar": np.float32(0.0371),
        "rows": random.uniform(-2, 2, rows).astype(np.float32),
    }


def group_scales(rows: int, groups: int, is_half: bool = True) -> Array:
    """Scales of groups of columns, of both signs, some 0: float16, or float32 that it has not."""
    random = np.random.default_rng((4, rows, groups))
    scales = random.uniform(0.01, 2, (rows, groups)).astype(np.float16)
    scales *= random.choice(np.array([-1, 0, 1], np.float16), scales.shape, p=[0.3, 0.1, 0.6])
    if is_half:
        return scales
    return scales.astype(np.float32) * np.float32(1 + 2**-20)


def grouped(
    rows: int, columns: int, group: int, encoding: str = "two_bit", is_half: bool = True
) -> tuple[Array, Array, ternops.TernaryMatrix]:
    """Weights, their scales a group of columns, and the matrix of both."""
    weights = trits(rows, columns, encoding=encoding)
    scale = group_scales(rows, columns // group, is_half)
    return weights, scale, ternops.pack(weights, scale, encoding)


def extreme_activations(columns: int) -> dict[str, Array]:
    """int8 vectors whose sums are the largest there are."""
    alternating = np.full(columns, -128, np.int8)
    alternating[::2] = 127
    return {
        "least": np.full(columns, -128, np.int8),
        "greatest": np.full(columns, 127, np.int8),
        "alternating": alternating,
    }


def extreme_trits(columns: int) -> dict[str, Array]:
    """Rows of trits that keep, negate, or rectify `extreme_activations`."""
    alternating = np.full(columns, -1, np.int8)
    alternating[::2] = 1
    return {
        "plus": np.ones(columns, np.int8),
        "minus": np.full(columns, -1, np.int8),
        "alternating": alternating,
    }


def same_bits(left: Any, right: Any) -> bool:
    """Equal dtype, shape and bits, except that every NaN equals every other."""
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind != "f":
        return bool((left == right).all())
    bits = f"u{left.dtype.itemsize}"
    nan = np.isnan(left) & np.isnan(right)
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    return bool(((left.view(bits) == right.view(bits)) | nan).all())
