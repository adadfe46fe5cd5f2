"""The log-probabilities of the tokens of a prompt, for completions that echo it."""

from __future__ import annotations

from collections.abc import Callable

from ternops.decoder.logprobs import Logprobs, logprobs_of
from ternops.decoder.model import Model, Session

#: Tokens of a part, between which others are decoded: their logits take 4 bytes a word of the
#: vocabulary each.
_PART = 64


def parts(
    model: Model, delta: str | None, tokens: list[int], count: int
) -> list[Callable[[], list[Logprobs]]]:
    """What the engine is to do, one part after another: together they give those of all tokens but
    the first, each with the `count` likeliest."""
    session: list[Session] = []

    def part(start: int) -> list[Logprobs]:
        if not session:
            session.append(Session(model, delta=delta))
        read = tokens[start : start + _PART]
        following = tokens[start + 1 : start + 1 + len(read)]
        logits = session[0].extend(read, len(read))
        return [
            logprobs_of(row, token, count) for row, token in zip(logits, following, strict=False)
        ]

    starts = range(0, len(tokens) - 1, _PART)
    return [lambda start=start: part(start) for start in starts]  # type: ignore[misc]
