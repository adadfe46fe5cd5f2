"""Generation of one sequence, token by token or with drafts that one pass checks."""

from __future__ import annotations

from collections.abc import Iterator

from ternops.decoder.alike import common
from ternops.decoder.drafts import Draft
from ternops.decoder.sampler import Sampler
from ternops.decoder.session import Progress, Session


def generate(
    session: Session,
    tokens: list[int],
    most: int,
    sampler: Sampler,
    ends: tuple[int, ...],
    draft: Draft | None,
    draft_tokens: int,
    progress: Progress | None,
) -> Iterator[int]:
    """Yield up to `most` tokens that follow `tokens`, ending before one of `ends`.

    draft_tokens: how many of `draft` a pass checks at most.
    Raises RuntimeError if the session was used elsewhere between two tokens.
    """
    if most == 0:
        return
    session.position = min(common(session.tokens, tokens), len(tokens) - 1)
    logits = session.read(tokens[session.position :], sampler.exact_top, progress)
    token = sampler(logits)
    if draft:
        draft.extend(tokens)
        following = _drafted(session, token, sampler, draft, draft_tokens, ends, most)
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


def _drafted(
    session: Session, token: int, sampler: Sampler, draft: Draft, draft_tokens: int,
    ends: tuple[int, ...], most: int,
) -> Iterator[int]:  # fmt: skip
    """A pass checks a draft: each of its tokens is right if it is what the sampler chooses at the
    token before.

    That is the rejection sampling of speculative decoding (Leviathan et al., arXiv 2211.17192) for
    a draft that is certain of itself: a token is accepted with its probability, and else another
    one is drawn by what is left. Since a token's logits have the same bits in any pass, and the
    sampler is asked once a token, the result is that of one token at a time, drawn ones included.
    """
    while True:
        yield token
        draft.extend([token])
        most -= 1
        room = min(session.room, most) - 1
        guess = draft.guess(min(draft_tokens, room, session.max_tokens - 1))
        start = session.position
        logits = session.extend([token, *guess], len(guess) + 1, sampler.exact_top)
        right, token = 0, sampler(logits[0])
        # Behind an end a sampler whose choice is constrained may have nothing to choose from.
        while right < len(guess) and guess[right] == token and token not in ends:
            right += 1
            token = sampler(logits[right])
        session.position = start + right + 1
        yield from guess[:right]
        draft.extend(guess[:right])
        most -= right
