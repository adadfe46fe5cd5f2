"""Rope as a config.json has it: what its frequencies are divided by, and what scales the rotated.

The formulas are those of transformers' modeling_rope_utils, in float64.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.config import check_positive, check_size, frequencies
from ternops.shown import shown

_ORIGINAL = "original_max_position_embeddings"
#: What any kind may say.
_COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor", _ORIGINAL)
#: The kinds, and the keys that each reads besides.
_KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": (
        "factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
        "truncate",
    ),
    "longrope": ("factor", "attention_factor", "short_factor", "long_factor"),
}  # fmt: skip


class Rope(NamedTuple):
    """Fields of `Config`, each with rope_ before its name."""

    theta: Any
    factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    original: int = 0
    scale: float = 1.0


def read_rope(rope: dict[str, Any], theta: Any, head_dim: Any, context: Any, original: Any) -> Rope:
    """Of an object of settings.

    theta: the base if it does not say. original: the context before it was extended, None: what the
    object says or the context. Raises ValueError for a kind or a key that is not known.
    """
    theta = first_given(rope.get("rope_theta"), theta)
    partial = first_given(rope.get("partial_rotary_factor"), 1.0)
    if partial != 1:
        raise ValueError(f"config: partial_rotary_factor is {shown(partial)}, expected 1")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(
            f"config: rope type {shown(kind)}, expected {' or '.join(map(repr, _KINDS))}"
        )
    known = _COMMON + _KINDS[kind]
    for key, value in rope.items():
        if key not in known and value is not None:
            raise ValueError(
                f"config: rope has {key} {shown(value)}, expected no more than "
                f"{', '.join(known)} of the type {shown(kind)}"
            )
    if kind == "default":
        return Rope(theta)
    check_positive("rope_theta", theta)
    check_size("head_dim", head_dim)
    if kind == "linear":
        return Rope(theta, (float(_positive(rope, "factor")),) * (head_dim // 2))
    original = first_given(original, rope.get(_ORIGINAL), context, 0)
    check_positive(_ORIGINAL, original)
    rates = frequencies(theta, head_dim)
    if kind == "llama3":
        return Rope(theta, _llama3(rope, rates, original))
    # The factor of the context's length; the two that need it.
    check_positive("max_position_embeddings", context)
    factor = _or(rope, "factor", context / original)
    if kind == "yarn":
        scale = _or(rope, "attention_factor", _yarn_scale(rope, factor))
        return Rope(theta, _yarn(rope, theta, rates, original, factor), scale=scale)
    if isinstance(original, float) or original < 2:
        raise ValueError(f"config: {_ORIGINAL} is {shown(original)}, expected an integer from 2 on")
    stretched = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = (_list(rope, key, head_dim // 2) for key in ("short_factor", "long_factor"))
    return Rope(theta, short, long, original, _or(rope, "attention_factor", stretched))


def _llama3(
    rope: dict[str, Any], rates: npt.NDArray[np.float64], original: float
) -> tuple[float, ...]:
    """As Llama 3.1 reaches a longer context: waves that turn less than `low` times in the
    `original` one are stretched by `factor`, those that turn more than `high` times are not."""
    factor = _positive(rope, "factor")
    low, high = _positive(rope, "low_freq_factor"), _positive(rope, "high_freq_factor")
    if not low < high:
        raise ValueError(f"config: low_freq_factor {low}, expected less than {high}, the high one")
    turns = original * rates / (2 * math.pi)
    return _stretched(factor, np.clip((turns - low) / (high - low), 0, 1))


def _yarn(
    rope: dict[str, Any], theta: float, rates: npt.NDArray[np.float64], original: float,
    factor: float,
) -> tuple[float, ...]:  # fmt: skip
    """YaRN (arXiv 2309.00071): the same, the border between them drawn by pair and not by wave."""
    pairs, truncate = len(rates), rope.get("truncate", True)  # null does not, as there
    fast, slow = _or(rope, "beta_fast", 32), _or(rope, "beta_slow", 1)
    if theta == 1:
        raise ValueError("config: rope_theta is 1, expected another base for 'yarn'")
    first, last = (
        2 * pairs * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (fast, slow)
    )
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = last - first or 0.001
    return _stretched(factor, 1 - np.clip((np.arange(pairs) - first) / width, 0, 1))


def _yarn_scale(rope: dict[str, Any], factor: float) -> float:
    """What the scores grow by, since there are more of them."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    weights = [rope.get(key) for key in ("mscale", "mscale_all_dim")]
    if not all(weights):
        return scale(1)
    of_all, of_scores = (_positive(rope, key) for key in ("mscale", "mscale_all_dim"))
    return scale(of_all) / scale(of_scores)


def _stretched(factor: float, kept: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """What divides the frequencies that are kept, 1, or stretched, 0, or in between."""
    return tuple((1 / ((1 - kept) / factor + kept)).tolist())


def _list(rope: dict[str, Any], key: str, count: int) -> tuple[float, ...]:
    """A factor for each pair of a head."""
    values = rope.get(key)
    if not isinstance(values, list) or len(values) != count:
        found = f"{len(values)} numbers" if isinstance(values, list) else repr(values)
        raise ValueError(f"config: {key} is {found}, expected a list of {count}")
    for value in values:
        check_positive(key, value)
    return tuple(map(float, values))


def _positive(rope: dict[str, Any], key: str) -> Any:
    check_positive(key, rope.get(key))
    return rope[key]


def _or(rope: dict[str, Any], key: str, default: float) -> Any:
    """A positive number, or the default where it is missing."""
    return default if rope.get(key) is None else _positive(rope, key)


def first_given(*values: Any) -> Any:
    """The first that is given: 0 counts, so that it is refused and not replaced."""
    return next((value for value in values if value is not None), None)
