"""Generation of one sequence, token by token or with drafts from earlier text."""

from __future__ import annotations

from collections.abc import Iterator

from ternops.decoder.sampler import Sampler
from ternops.decoder.session import Progress, Session

#: The longest run of tokens that is looked up, and the shortest.
_NGRAMS = (3, 2)


def generate(
    session: Session,
    tokens: list[int],
    most: int,
    sampler: Sampler,
    ends: tuple[int, ...],
    draft: int,
    progress: Progress | None,
) -> Iterator[int]:
    """Yield up to `most` tokens that follow `tokens`, ending before one of `ends`.

    Raises RuntimeError if the session was used elsewhere between two tokens.
    """
    if most == 0:
        return
    pairs = enumerate(zip(session.tokens, tokens, strict=False))
    known = next((i for i, (old, new) in pairs if old != new), len(session.tokens))
    session.position = min(known, len(tokens) - 1)
    logits = session.read(tokens[session.position :], sampler.exact_top, progress)
    token = sampler(logits)
    if draft:
        following = _looked_up(session, token, sampler, draft, ends, most)
    else:
        following = _one_by_one(session, token, sampler)
    for token in following:
        if token in ends:
            return
        left = session.passes, session.position
        yield token
        most -= 1
        if most == 0:
            return
        if (session.passes, session.position) != left:
            raise RuntimeError("session: used elsewhere, expected one generator at a time")


def _one_by_one(session: Session, token: int, sampler: Sampler) -> Iterator[int]:
    while True:
        yield token
        token = sampler(session.step(token, exact_top=sampler.exact_top))


def _looked_up(
    session: Session, token: int, sampler: Sampler, draft: int, ends: tuple[int, ...], most: int
) -> Iterator[int]:
    """Tokens from prompt lookup (Saxena, "Prompt Lookup Decoding", 2023).

    What followed the last occurrence of the latest tokens is taken as a draft, and one pass checks
    it: each of its tokens is right if it is what the sampler chooses at the token before. That is
    the rejection sampling of speculative decoding (Leviathan et al., arXiv 2211.17192) for a draft
    that is certain of itself. Since a token's logits have the same bits in any pass, and the
    sampler is asked once a token, the result is that of one token at a time, drawn ones included.
    """
    history = Lookup([*session.tokens, token])
    while True:
        yield token
        most -= 1
        room = min(session.room, most) - 1
        guess = history.draft(min(draft, room, session.max_tokens - 1))
        start = session.position
        logits = session.extend([token, *guess], len(guess) + 1, sampler.exact_top)
        right, token = 0, sampler(logits[0])
        # Behind an end a sampler whose choice is constrained may have nothing to choose from.
        while right < len(guess) and guess[right] == token and token not in ends:
            right += 1
            token = sampler(logits[right])
        session.position = start + right + 1
        for each in guess[:right]:
            history.append(each)
            yield each
        most -= right
        history.append(token)


class Lookup:
    """A growing sequence that knows where each run of tokens last occurred."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Add a token; the runs that end before it are then known to be followed by it."""
        end = len(self._tokens)
        for size in _NGRAMS:
            if end >= size:
                self._behind[tuple(self._tokens[end - size :])] = end
        self._tokens.append(token)

    def draft(self, most: int) -> list[int]:
        """Up to `most` tokens that followed the latest ones where they last occurred before."""
        for size in _NGRAMS:
            if len(self._tokens) >= size:
                start = self._behind.get(tuple(self._tokens[-size:]))
                if start is not None:
                    return self._tokens[start : start + most]
        return []
