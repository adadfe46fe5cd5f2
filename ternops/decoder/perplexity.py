"""How well a model predicts a text: its windows, the likelihood of their tokens, the perplexity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.alike import common
from ternops.decoder.session import Session

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Logits that are looked at at a time, 1 MB of float64: in memory that is new for all of them it
#: takes several times as long.
_AT_ONCE = 1 << 17


def windows(tokenizer: Tokenizer, text: str, context: int) -> Iterator[list[int]]:
    """The tokens of a text, cut into windows that begin as the tokenizer begins a text.

    context: tokens of a window, those that begin it included. A last window without a token to
    predict is left out. Raises ValueError for a context that what begins a text fills.
    """
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    sample = tokenizer.encode("a")
    begin = sample.ids[: len(list(itertools.takewhile(bool, sample.special_tokens_mask)))]
    step = context - len(begin)
    if step < 1:
        raise ValueError(f"context={context}: expected more than {begin}, which begin a text")
    cut = (begin + tokens[at : at + step] for at in range(0, len(tokens), step))
    return (window for window in cut if len(window) > 1)


class Likelihood(NamedTuple):
    """losses: the negative log-likelihood of each token. is_greedy: each is the likeliest."""

    losses: list[float]
    is_greedy: bool


def likelihood(session: Session, tokens: list[int], start: int = 1) -> Likelihood:
    """That of tokens[start:], each given those before it; what the session holds of them is used.

    Raises ValueError for a start below 1.
    """
    if start < 1:
        raise ValueError(f"start={start}: expected 1 or more, a first token has no likelihood")
    session.position = min(common(session.tokens, tokens), start - 1)
    if session.position < start - 1:
        session.read(tokens[session.position : start - 1])
    scorer = Scorer(tokens[start:])
    for logits in session.each_logits(tokens[start - 1 : -1]):
        scorer(logits)
    return scorer.found


class Scorer:
    """Scores tokens as the logits come that each has before it."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._losses: list[float] = []
        self._is_greedy = True

    def __call__(self, logits: npt.NDArray[np.float32]) -> None:
        """Score the next tokens by their rows of float32 (some, vocabulary) logits, all exact."""
        at = len(self._losses)
        targets = self._tokens[at : at + len(logits)]
        self._losses += negative_log_likelihoods(logits, targets)
        self._is_greedy = self._is_greedy and bool((logits.argmax(axis=1) == targets).all())

    @property
    def found(self) -> Likelihood:
        """That of the tokens so far."""
        return Likelihood(self._losses, self._is_greedy)

    @property
    def left(self) -> int:
        """Tokens that are not scored yet."""
        return len(self._tokens) - len(self._losses)


def negative_log_likelihoods(logits: npt.NDArray[Any], targets: Sequence[int]) -> list[float]:
    """Of each target by its row of float (tokens, vocabulary) logits, in float64."""
    found: list[float] = []
    step = max(1, _AT_ONCE // logits.shape[1])
    for at in range(0, len(targets), step):
        rows, wanted = logits[at : at + step], targets[at : at + step]
        scores = np.subtract(rows, rows.max(axis=1, keepdims=True), dtype=np.float64)
        chosen = scores[np.arange(len(wanted)), wanted]
        np.exp(scores, out=scores)
        found += (np.log(scores.sum(axis=1)) - chosen).tolist()
    return found


def perplexity(losses: Sequence[float]) -> float:
    """exp of the mean: one rounding of the sum, whatever the windows and the tokens in a pass."""
    with np.errstate(over="ignore"):
        return float(np.exp(math.fsum(losses) / len(losses)))
