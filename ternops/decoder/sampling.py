"""The settings by which the next token is chosen from logits."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen; `Sampler` does it, in the order of what stands here.

    logit_bias: token -> what is added to its logit; -inf rules it out.
    repetition_penalty: the logits of tokens of the prompt and of the text generated so far are
    divided by it if they are positive, multiplied if negative (Keskar et al., arXiv 1909.05858, as
    transformers has it); 1 is none.
    frequency_penalty, presence_penalty: for a token that has been generated n > 0 times
    n * frequency_penalty + presence_penalty is subtracted (OpenAI's; the prompt does not count).
    temperature: 0 takes the largest logit (of equal ones the lowest token) and nothing below
    matters; others draw from softmax(logits / temperature).
    top_k: only among the k likeliest (0: all).
    top_p: only among the fewest likeliest whose probabilities, of what top_k has left, reach it
    (Holtzman et al., arXiv 1904.09751).
    min_p: only those that are at least min_p times as likely as the likeliest (Nguyen et al., arXiv
    2407.01082).
    seed: the same one gives the same choices, alone and beside other sequences; None: by chance.
    Raises ValueError, naming the setting, for one that is out of range, TypeError for no number.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self._number("temperature") < math.inf:
            raise self._error("temperature", "a finite number, 0 or more")
        if not 0.0 < self._number("top_p") <= 1.0:
            raise self._error("top_p", "more than 0 and at most 1")
        if self._integer("top_k") < 0:
            raise self._error("top_k", "0 or more")
        if not 0.0 <= self._number("min_p") <= 1.0:
            raise self._error("min_p", "0 to 1")
        if not 0.01 <= self._number("repetition_penalty") <= 100.0:
            raise self._error("repetition_penalty", "0.01 to 100")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -100.0 <= self._number(name) <= 100.0:
                raise self._error(name, "-100 to 100")
        if self.seed is not None and self._integer("seed") < 0:
            raise self._error("seed", "0 or more")
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before one is chosen: all of them may then matter."""
        penalties = self.presence_penalty, self.frequency_penalty
        return bool(self.logit_bias or self.repetition_penalty != 1.0 or any(penalties))

    def check_vocabulary(self, vocabulary: int) -> None:
        """Raises ValueError for a token of logit_bias that a model of so many tokens has not."""
        most = max(self.logit_bias, default=0)
        if most >= vocabulary:
            raise ValueError(f"logit_bias: {most} is no token, expected 0 to {vocabulary - 1}")

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        if not isinstance(value, numbers.Real):
            raise TypeError(f"{name}={value!r}: expected a number")
        return float(value)

    def _integer(self, name: str) -> int:
        value = getattr(self, name)
        try:
            return operator.index(value)
        except TypeError:
            raise TypeError(f"{name}={value!r}: expected an integer") from None

    def _error(self, name: str, expected: str) -> ValueError:
        return ValueError(f"{name}={getattr(self, name)}: expected {expected}")


def _checked_bias(bias: Mapping[Any, Any]) -> dict[int, float]:
    if not isinstance(bias, Mapping):
        raise TypeError(f"logit_bias: {type(bias).__name__}, expected a mapping of token to number")
    found = {}
    for token, value in bias.items():
        try:
            number = operator.index(token)
        except TypeError:
            raise TypeError(f"logit_bias: {token!r} is no token, expected integers") from None
        if number < 0:
            raise ValueError(f"logit_bias: {number} is no token, expected 0 or more")
        if not isinstance(value, numbers.Real):
            raise TypeError(f"logit_bias: {value!r} for token {number}, expected a number")
        if not (float(value) == -math.inf or abs(float(value)) <= _LARGEST_FLOAT32):
            raise ValueError(f"logit_bias: {value} for token {number}, expected a float32 or -inf")
        found[number] = float(value)
    return found
