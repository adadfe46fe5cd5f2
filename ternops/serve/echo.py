"""The log-probabilities of the tokens of a prompt, for completions that echo it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ternops.decoder.logprobs import Logprobs, logprobs_of
from ternops.decoder.model import Model
from ternops.decoder.session import LOGITS_AT_ONCE, Session


def parts(
    model: Model, delta: str | None, tokens: list[int], count: int
) -> list[Callable[[], list[Logprobs]]]:
    """What the engine is to do, one part after another, between which others are decoded: together
    they give those of all tokens but the first, each with the `count` likeliest."""
    found = _parts(model, delta, tokens, count)
    return [partial(next, found)] * -(-(len(tokens) - 1) // LOGITS_AT_ONCE)


def _parts(
    model: Model, delta: str | None, tokens: list[int], count: int
) -> Iterator[list[Logprobs]]:
    following = iter(tokens[1:])
    for logits in Session(model, delta=delta).each_logits(tokens[:-1]):
        yield [logprobs_of(row, next(following), count) for row in logits]
