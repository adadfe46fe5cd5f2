"""The logits and the tokens of a model, by different ways that must give the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder import Batch, Model, Session

Logits = npt.NDArray[np.float32]


def stepped(model: Model, tokens: Sequence[int]) -> Logits:
    """After each token, one token at a time."""
    session = Session(model)
    return np.stack([session.step(token).copy() for token in tokens])


def in_passes(model: Model, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
    """The same, in passes of so many tokens."""
    session, found = Session(model), []
    for length in lengths:
        start = session.position
        found += list(session.extend(tokens[start : start + length], length).copy())
    return np.stack(found)


def run_batch(batch: Batch) -> dict[int, list[int]]:
    """request -> its tokens, until all have ended; each must end once."""
    tokens: dict[int, list[int]] = {}
    ended = set()
    while len(batch):
        for request, token, last, *_ in batch.step():
            assert request not in ended
            tokens.setdefault(request, [])
            if token is not None:
                tokens[request].append(token)
            if last:
                ended.add(request)
    assert ended == set(tokens)
    assert batch.step() == []
    return tokens


def check_batch(model: Model, prompts: Sequence[Sequence[int]]) -> None:
    """A batch of prompts gives the tokens of each alone."""
    batch = Batch(model, 5)
    expected: dict[Any, list[int]] = {
        batch.add(prompt, 9): list(model.generate(prompt, 9)) for prompt in prompts
    }
    assert run_batch(batch) == expected
