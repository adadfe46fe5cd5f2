"""Which encoding each matrix of a model gets, for a mean of so many bits a weight.

The errors of all encodings are measured on what a matrix is multiplied with. A Lagrange multiplier
says which of them it gets: the least of error + multiplier * bits, with the multiplier at which the
sum of bits just fits (Shoham and Gersho, Efficient Bit Allocation for an Arbitrary Set of
Quantizers, 1988). That what counts is itself made small, and no model of it, is an idea of Xu et
al., Bit Allocation using Optimization, arXiv 2209.09422, who do it by gradients, for video. The
candidates are those of BitsFusion (arXiv 2406.04333): levels with a balance integer or without,
and a scale that weights are rounded with and that is fitted to what they became, in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.absmean import check_weights
from ternops.arrays import as_array
from ternops.encodings import ENCODINGS
from ternops.matrix import TernaryMatrix, pack
from ternops.quantizers import METHODS

Array = npt.NDArray[Any]
#: (name, float32 weights as they would be) -> what is to be as small as can be, added up.
Loss = Callable[[str, Array], float]

_SCALE_BITS = 32  # one a row
_STEPS = 200  # of halving the interval that the multiplier is in


class Option(NamedTuple):
    """An encoding, its bits a weight, and the levels it may have: one of them is chosen.

    balance: of BitsFusion's n bits there are 2**n integers, from -2**(n-1) on ("centre": not as
    many above 0 as below), or one more, for as many on both sides ("zero", its balance integer); or
    2**n odd ones around no zero ("one").
    """

    encoding: str
    bits: float
    balances: Mapping[str, tuple[int, ...]]


def balances(bits: int, names: Sequence[str] = ("one", "centre")) -> dict[str, tuple[int, ...]]:
    """The levels of so many bits, by how they are balanced."""
    half = 1 << (bits - 1)
    every = {
        "zero": tuple(range(-half, half + 1)),
        "one": tuple(range(1 - 2 * half, 2 * half, 2)),
        "centre": tuple(range(-half, half)),
    }
    return {name: every[name] for name in names}


#: From the fewest bits to the most. Trits are one bit with its balance integer.
OPTIONS = (
    Option("one_bit", 1, balances(1, ("one",))),
    Option("base3", 1.6, balances(1, ("zero",))),
    Option("two_bit", 2, balances(2)),
    Option("three_bit", 3, balances(3)),
    Option("nibble", 4, balances(4)),
)


def stored_here() -> tuple[Option, ...]:
    """Of OPTIONS those that this version packs."""

    def known(option: Option) -> bool:
        layout = ENCODINGS.get(option.encoding)
        return layout is not None and all(map(layout.can_have, option.balances.values()))

    return tuple(option for option in OPTIONS if known(option))


@dataclass(frozen=True)
class Candidate:
    """A matrix in one of the encodings: int8 values, of `levels`, times float32 scale (rows,).

    nbits: of values and scales, not of what fills up panels of 16 rows; error: see `allocate`.
    """

    option: Option
    levels: tuple[int, ...]
    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    nbits: float
    error: float = math.nan

    def to_dense(self) -> npt.NDArray[np.float32]:
        """float32 (rows, columns)."""
        return self.values * self.scale[:, None]

    def pack(self) -> TernaryMatrix:
        """The same for products."""
        return pack(self.values, self.scale, self.option.encoding, self.levels)


@dataclass(frozen=True)
class Allocation:
    """chosen: of each matrix one candidate."""

    chosen: dict[str, Candidate]

    @property
    def bits(self) -> float:
        """Bits a weight of all matrices together, scales included."""
        return sum(each.nbits for each in self.chosen.values()) / self._weights

    @property
    def error(self) -> float:
        """The sum of all errors."""
        return sum(each.error for each in self.chosen.values())

    @property
    def ratio(self) -> float:
        """How much smaller than in float16 the matrices are."""
        return 16 / self.bits

    def pack(self) -> dict[str, TernaryMatrix]:
        """Every matrix in its encoding."""
        return {name: each.pack() for name, each in self.chosen.items()}

    @property
    def _weights(self) -> int:
        return max(1, sum(each.values.size for each in self.chosen.values()))


def allocate(
    model: Mapping[str, npt.ArrayLike],
    bits: float = 1.99,
    activations: Mapping[str, npt.ArrayLike] | None = None,
    loss: Loss | None = None,
    options: Sequence[Option] | None = None,
) -> Allocation:
    """Give each matrix the encoding that makes the errors least, with a mean of at most `bits`.

    model: float matrices (rows, columns) by name. activations: by the same names what they are
    multiplied with, (samples, columns); without, columns count alike. An error is |x (W - V)^T|^2
    over |x W^T|^2, or what `loss` measures of a name and the weights that it would have. Scales,
    one a row, are at last those of the least such error: s = <x w, x v> / <x v, x v>.
    options: what to choose from, by default what this version packs (`stored_here`).
    Raises TypeError and ValueError, naming the argument, for anything else and for bits that no
    encoding gets down to.
    """
    if isinstance(bits, bool) or not isinstance(bits, int | float | np.floating):
        raise TypeError(f"bits={bits!r}: expected a number")
    if not model:
        raise ValueError("model: no matrices, expected one at least")
    chosen_from = stored_here() if options is None else tuple(options)
    if not chosen_from:
        raise ValueError("options: none, expected one at least")
    if activations is not None and (missing := set(model) ^ set(activations)):
        raise ValueError(f"activations: {min(missing)!r} is not in both, expected the same names")
    found: dict[str, list[Candidate]] = {}
    for name, each in model.items():
        weight = _checked(name, each)
        samples = None if activations is None else _samples(name, activations[name], weight)
        found[name] = list(_candidates(name, weight, samples, chosen_from, loss))
    size = sum(each[0].values.size for each in found.values())
    chosen = _search(list(found.values()), float(bits) * size)
    if chosen is None:
        least = sum(min(each.nbits for each in every) for every in found.values()) / size
        raise ValueError(f"bits={bits!r}: expected {least:.4g} at least, scales included")
    return Allocation(dict(zip(found, chosen, strict=True)))


def _checked(name: str, value: npt.ArrayLike) -> npt.NDArray[np.float32]:
    try:
        weight = check_weights(value).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise type(error)(f"model: {name!r}: {error}") from None
    if not weight.size or not np.isfinite(weight).all():
        raise ValueError(f"model: {name!r} is empty or not finite, expected finite numbers")
    return weight


def _samples(name: str, value: npt.ArrayLike, weight: Array) -> Array:
    samples = as_array(f"activations: {name!r}", value)
    if samples.ndim != 2 or samples.shape[1] != weight.shape[1] or samples.dtype.kind != "f":
        raise ValueError(
            f"activations: {name!r} is {samples.dtype} {samples.shape}, expected floats "
            f"(samples, {weight.shape[1]})"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"activations: {name!r} holds NaN or infinity, expected finite numbers")
    return samples


def _candidates(
    name: str, weight: Array, samples: Array | None, options: Sequence[Option], loss: Loss | None
) -> Iterator[Candidate]:
    """Of each option the levels with the least error."""
    # |x (w - v)| is |root (w - v)|, and that has no more rows than columns.
    root: Any = None
    if samples is not None:
        root = np.linalg.qr(samples.astype(np.float64), mode="r")

    def outputs(dense: Array) -> Array:
        found: Array = dense.astype(np.float64) if root is None else dense @ root.T
        return found

    wanted = outputs(weight)
    whole = max(float(np.square(wanted).sum()), np.finfo(np.float64).tiny)
    for option in options:
        made = []
        for levels in option.balances.values():
            values, scale = METHODS["mse"].quantize(weight, levels)
            scale = refined(wanted, outputs(values.astype(np.float32)), scale)
            nbits = option.bits * weight.size + _SCALE_BITS * len(weight)
            each = Candidate(option, levels, values, scale, nbits)
            error = float(np.square(wanted - outputs(each.to_dense())).sum()) / whole
            made.append(replace(each, error=error))
        best = min(made, key=lambda each: each.error)
        yield replace(best, error=float(loss(name, best.to_dense()))) if loss else best


def refined(wanted: Array, unscaled: Array, scale: Array) -> npt.NDArray[np.float32]:
    """The scales (rows,) of the least squared error of outputs (rows, samples), those that there
    are where a row's outputs are 0 or point away."""
    squares = np.einsum("ij,ij->i", unscaled, unscaled)
    fits = np.einsum("ij,ij->i", wanted, unscaled) / np.where(squares > 0, squares, 1)
    with np.errstate(over="ignore"):
        found = fits.astype(np.float32)
    return np.where(np.isfinite(found) & (found > 0), found, scale)


def _search(every: list[list[Candidate]], budget: float) -> list[Candidate] | None:
    """The least sum of errors with at most so many bits, or nearly: one multiplier for all of them,
    and then what is left of the bits for what they do most for. None where none fits."""

    def at(multiplier: float) -> list[Candidate]:
        return [
            min(each, key=lambda c: (c.error + multiplier * c.nbits, c.nbits)) for each in every
        ]

    def cost(chosen: list[Candidate]) -> float:
        return sum(each.nbits for each in chosen)

    cheapest = [min(each, key=lambda c: (c.nbits, c.error)) for each in every]
    if cost(cheapest) > budget:
        return None
    low, high, chosen = 0.0, 1.0, cheapest
    if cost(at(low)) <= budget:
        return at(low)
    while cost(at(high)) > budget and high < 1e300:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(at(middle)) <= budget else (middle, high)
    if cost(at(high)) <= budget:
        chosen = at(high)
    return _filled(every, chosen, budget - cost(chosen))


def _filled(every: list[list[Candidate]], chosen: list[Candidate], left: float) -> list[Candidate]:
    """Spend what is left, always where an error falls most for its bits."""
    while True:
        steps = [
            ((now.error - better.error) / max(better.nbits - now.nbits, 1e-9), at, better)
            for at, now in enumerate(chosen)
            for better in every[at]
            if better.error < now.error and better.nbits - now.nbits <= left
        ]
        if not steps:
            return chosen
        _, at, better = max(steps, key=lambda step: step[0])
        left -= better.nbits - chosen[at].nbits
        chosen = [*chosen[:at], better, *chosen[at + 1 :]]
