"""Guesses of what comes next, which one pass of a model then checks."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ternops.decoder.alike import common
from ternops.decoder.loaded import LoadedModel
from ternops.decoder.session import Session

#: The longest run of tokens that is looked up, and the shortest.
_NGRAMS = (3, 2)


class Draft(Protocol):
    """Follows a growing sequence of tokens and guesses its next ones."""

    def extend(self, tokens: Sequence[int]) -> None:
        """These have come."""

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens that may be next."""


class Lookup:
    """Guesses what followed the latest tokens where they last occurred (Saxena, "Prompt Lookup
    Decoding", 2023)."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens; the runs that end before one are then known to be followed by it."""
        for token in tokens:
            end = len(self._tokens)
            for size in _NGRAMS:
                if end >= size:
                    self._behind[tuple(self._tokens[end - size :])] = end
            self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        for size in _NGRAMS:
            if len(self._tokens) >= size:
                start = self._behind.get(tuple(self._tokens[-size:]))
                if start is not None:
                    return self._tokens[start : start + most]
        return []


class DraftModel:
    """Guesses what a smaller model would say greedily (Leviathan et al., arXiv 2211.17192)."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tokens: list[int] = []

    def extend(self, tokens: Sequence[int]) -> None:
        self._tokens += tokens

    def guess(self, most: int) -> list[int]:
        session = self._session
        # What the large model did not agree with is forgotten.
        session.position = min(common(session.tokens, self._tokens), len(self._tokens) - 1)
        most = min(most, session.position + session.room - len(self._tokens))
        if most <= 0:
            return []
        logits = session.read(self._tokens[session.position :], 1)
        found = [int(np.argmax(logits))]
        while len(found) < most:
            found.append(int(np.argmax(session.step(found[-1], exact_top=1))))
        return found


def draft_of(
    model: LoadedModel, prompt_lookup: int, draft_model: LoadedModel | Session | None, tokens: int
) -> tuple[Draft | None, int]:
    """What guesses for a model, and how many tokens: `prompt_lookup`, or so many of `draft_model`.

    Raises ValueError for numbers out of range, for both at once and for other tokens than the
    model's, TypeError for what is no model.
    """
    if operator.index(prompt_lookup) < 0:
        raise ValueError(f"prompt_lookup={prompt_lookup}: expected 0 or more")
    if draft_model is None:
        return (Lookup() if prompt_lookup else None), prompt_lookup
    if prompt_lookup:
        raise ValueError(f"prompt_lookup={prompt_lookup}: expected 0 with draft_model")
    if operator.index(tokens) < 1:
        raise ValueError(f"draft_tokens={tokens}: expected 1 or more")
    if not isinstance(draft_model, LoadedModel | Session):
        name = type(draft_model).__name__
        raise TypeError(f"draft_model: {name}, expected a Model or a Session of one")
    session = draft_model if isinstance(draft_model, Session) else Session(draft_model)
    vocabulary = session.model.config.vocabulary
    if vocabulary != model.config.vocabulary:
        raise ValueError(
            f"draft_model: it has {vocabulary} tokens, expected the "
            f"{model.config.vocabulary} of this model"
        )
    return DraftModel(session), tokens
