"""The papers' formulas, written down once more, a weight at a time and in Python's own floats."""

from __future__ import annotations

import math
from bisect import bisect
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist

import numpy as np


def nearest(x, levels):
    """Ties go to the level an even number of places from 0, or from the lowest."""
    origin = levels.index(0) if 0 in levels else 0
    exact, place = Fraction(x), bisect(levels, x)
    near = range(len(levels))[max(0, place - 2) : place + 2]
    return min(near, key=lambda i: (abs(exact - levels[i]), abs(i - origin) % 2))


def absmax(w, levels):
    return max(map(abs, w)) / levels[-1]


def absmean(w, levels):
    return max(sum(map(abs, w)) / len(w), 1e-5)


def seq(w, levels):
    """Of the range -alpha..alpha, n equal parts: their middles are the values."""
    alpha = max(map(abs, w))
    last_middle = -alpha + (len(levels) - 0.5) * 2 * alpha / len(levels)
    return last_middle / levels[-1]


def lsq(w, levels):
    step = 2 * sum(map(abs, w)) / len(w) / math.sqrt(levels[-1])
    for _ in range(12):
        v = [levels[nearest(x / step, levels)] for x in w]
        square = sum(each * each for each in v)
        product = sum(x * each for x, each in zip(w, v, strict=True))
        if square and product > 0:
            step = product / square
    return step


def outermost(w, levels):
    return max(map(abs, w)) / max(map(abs, levels))


def mxfp4(w, levels):
    return 2.0 ** (math.floor(math.log2(max(map(abs, w)))) - 2) / 2


def bct(w, levels):
    return 2.0 ** math.ceil(math.log2(max(map(abs, w)) / levels[-1]))


#: The formula of a scale by the method's name.
SCALES = {
    "absmax": absmax, "absmean": absmean, "sign": absmean, "seq": seq, "lsq": lsq, "int3": absmax,
    "int4": absmax, "int8": absmax, "nf4": outermost, "quantile": outermost, "fp4": absmax,
    "e1m2": absmax, "e3m0": absmax, "mxfp4": mxfp4, "nvfp4": absmax, "denseshift": absmax,
    "bct": bct,
}  # fmt: skip


def normal_float(bits):
    """QLoRA's NormalFloat as its authors' program makes it."""
    outer = 0.5 * (1 - 1 / 32 + 1 - 1 / 30)
    assert bits == 4
    inverse = NormalDist().inv_cdf
    positive = [inverse(outer + (0.5 - outer) * i / 8) for i in range(8)]
    negative = [-inverse(outer + (0.5 - outer) * i / 7) for i in range(7)]
    levels = sorted([*positive, 0.0, *negative])
    return [each / levels[-1] for each in levels]


def minifloats(exponent, mantissa, bias):
    """All magnitudes of a format without infinity and NaN."""
    found = []
    for e in range(2**exponent):
        for m in range(2**mantissa):
            part = m / 2**mantissa
            found.append(2.0 ** (1 - bias) * part if e == 0 else 2.0 ** (e - bias) * (1 + part))
    return found


def least_error(w, levels):
    """The least squared error of any scale: between two of those at which a weight's level changes
    the levels are fixed, and the best scale for them is known."""
    middles = [(a + b) / 2 for a, b in pairwise(levels)]
    edges = sorted({x / m for x in w for m in middles if m and x / m > 0})
    scales = np.array([edges[0] / 2, *((a + b) / 2 for a, b in pairwise(edges)), 2 * edges[-1]])
    ratios = np.array(w) / scales[:, None]
    v = np.array(levels)[np.abs(ratios[..., None] - levels).argmin(axis=2)]
    product, square = (v * w).sum(axis=1), (v * v).sum(axis=1)
    gained = np.where((square > 0) & (product > 0), product**2 / np.maximum(square, 1), 0)
    return sum(x * x for x in w) - gained.max()
