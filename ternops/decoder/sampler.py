"""Choosing the next token from logits, by the settings of `Sampling`."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ternops.decoder.logprobs import Logprobs, logprobs_of
from ternops.decoder.sampling import Sampling
from ternops.decoder.softmax import draw, largest, weights_of

#: How many of the likeliest tokens are sorted at first, to find those that reach top_p.
_FIRST_SORTED = 256


class Constraint(Protocol):
    """What tokens may come next in a text that must have some structure, such as JSON."""

    def allowed(self) -> npt.NDArray[Any]:
        """Those that may come next: bool, one a token, or (u)int32 with token t at bit t % 32 of
        word t // 32. Tokens beyond its end may not come."""

    def accept(self, token: int) -> None:
        """This one has come."""


class Sampler:
    """Chooses the tokens of one sequence, one call each, in the order that `Sampling` says, after
    `constraint` has ruled out what may not come.

    prompt: the tokens that repetition_penalty counts before any is generated. logprobs: note in
    `latest` the log-probability of each chosen token and of so many of the likeliest; None: not.
    Raises ValueError or TypeError for logprobs below 0 or no integer.
    """

    def __init__(
        self,
        settings: Sampling,
        prompt: Sequence[int] = (),
        constraint: Constraint | None = None,
        logprobs: int | None = None,
    ) -> None:
        if logprobs is not None and operator.index(logprobs) < 0:
            raise ValueError(f"logprobs={logprobs}: expected 0 or more")
        self._settings, self._constraint, self._logprobs = settings, constraint, logprobs
        self._random = np.random.default_rng(settings.seed)
        self._generated: Counter[int] = Counter()
        self._present = dict.fromkeys(prompt) if settings.repetition_penalty != 1.0 else {}
        bias = settings.logit_bias
        self._biased = np.array(list(bias), np.intp), np.array(list(bias.values()), np.float32)
        self._adjusts = settings.adjusts or constraint is not None
        needs_all = self._adjusts or logprobs is not None
        #: How many of the largest logits must be exact, since they decide; 0: all.
        self.exact_top = 0 if needs_all else settings.top_k if settings.temperature else 1
        #: Log-probabilities of the token that was chosen last, None without `logprobs`.
        self.latest: Logprobs | None = None

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """A token for float32 logits (vocabulary,); those that do not decide may be -inf.

        Raises ValueError where the largest is NaN or, for a draw, infinite, and where the
        constraint allows no token.
        """
        settings = self._settings
        adjusted = self._adjust(logits) if self._adjusts else logits
        token = self._draw(adjusted) if settings.temperature else _likeliest(adjusted)
        if self._logprobs is not None:
            self.latest = logprobs_of(logits, token, self._logprobs)
        if self._constraint is not None:
            self._constraint.accept(token)
        if settings.adjusts:
            self._generated[token] += 1
            self._present[token] = None
        return token

    @np.errstate(over="ignore")  # to -inf, which is what so large a penalty means
    def _adjust(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        settings, logits = self._settings, logits.copy()
        if self._constraint is not None:
            logits[~_unpacked(self._constraint.allowed(), len(logits))] = -np.inf
            if logits.max() == -np.inf:
                raise ValueError("constraint: allows no token, expected one at least")
        tokens, bias = self._biased
        logits[tokens] += bias
        if len(tokens) and logits.max() == -np.inf:
            raise ValueError("logit_bias: rules out every token, expected one that may come")
        if settings.repetition_penalty != 1.0:
            penalty = np.float32(settings.repetition_penalty)
            present = np.fromiter(self._present, np.intp, len(self._present))
            found = logits[present]
            logits[present] = np.where(found < 0, found * penalty, found / penalty)
        if settings.presence_penalty or settings.frequency_penalty:
            count = len(self._generated)
            generated = np.fromiter(self._generated.keys(), np.intp, count)
            times = np.fromiter(self._generated.values(), np.float32, count)
            subtracted = np.float32(settings.frequency_penalty) * times
            logits[generated] -= subtracted + np.float32(settings.presence_penalty)
        return logits

    def _draw(self, logits: npt.NDArray[np.float32]) -> int:
        tokens, weights = self._weights(logits)
        at = draw(weights, self._random.random())
        return at if tokens is None else int(tokens[at])

    def _weights(
        self, logits: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.intp] | None, npt.NDArray[np.float64]]:
        """The tokens to draw from, None for all, and their probabilities but for a factor."""
        settings, peak = self._settings, float(logits.max())
        if not np.isfinite(peak):
            raise ValueError(f"logits: the largest is {peak}, expected a finite number")
        tokens: npt.NDArray[np.intp] | None = None
        if 0 < settings.top_k < len(logits):
            tokens = largest(logits, settings.top_k)
            logits = logits[tokens]
        weights = weights_of(logits, peak, settings.temperature)
        if settings.top_p < 1.0:
            order = _nucleus(weights, settings.top_p)
            tokens, weights = order if tokens is None else tokens[order], weights[order]
        if settings.min_p:
            weights[weights < settings.min_p] = 0  # the largest is 1
        return tokens, weights


def _likeliest(logits: npt.NDArray[np.float32]) -> int:
    token = int(np.argmax(logits))  # of a NaN, if there is one
    if np.isnan(logits[token]):
        raise ValueError(f"logits: NaN for token {token}, expected numbers")
    return token


def _unpacked(allowed: npt.NDArray[Any], vocabulary: int) -> npt.NDArray[np.bool_]:
    """What a constraint allows as bool (vocabulary,)."""
    if allowed.dtype != np.bool_:
        if allowed.dtype not in (np.int32, np.uint32):
            raise TypeError(f"constraint: {allowed.dtype} of allowed(), expected bool or uint32")
        octets = np.ascontiguousarray(allowed).astype("<u4", copy=False).view(np.uint8)
        allowed = np.unpackbits(octets, bitorder="little").view(np.bool_)
    result = np.zeros(vocabulary, np.bool_)
    result[: len(allowed)] = allowed[:vocabulary]
    return result


def _nucleus(weights: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    """The fewest largest weights that reach top_p of the sum, largest first."""
    total = weights.sum()
    count = min(_FIRST_SORTED, len(weights))
    while True:
        order = largest(weights, count)
        cumulative = np.cumsum(weights[order])
        if cumulative[-1] >= top_p * total or count == len(weights):
            return order[: int(np.searchsorted(cumulative, top_p * total)) + 1]
        count = min(8 * count, len(weights))
