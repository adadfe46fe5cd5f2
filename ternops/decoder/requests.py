"""A batch's requests: what was asked for, what runs, and what a step computes of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ternops.decoder.logprobs import Logprobs
from ternops.decoder.prefix_cache import SequencePages
from ternops.decoder.sampler import Sampler
from ternops.decoder.session import Session
from ternops.decoder.workspace import MAX_TOKENS


class Emitted(NamedTuple):
    """A token of a request; `last` if it is its last one. token is None where none came at all.

    logprobs: of a token of a request that was added with `logprobs`.
    """

    request: int
    token: int | None
    last: bool
    logprobs: Logprobs | None = None


@dataclass
class Request:
    """A sequence that was added. left: tokens that may still be emitted. pages: of the whole."""

    number: int
    prompt: list[int]
    left: int
    sampler: Sampler
    ends: tuple[int, ...]
    delta: str | None
    pages: int

    def emit(self, token: int) -> Emitted:
        """What to say of the next token that was chosen."""
        if self.left == 0 or token in self.ends:
            self.left = 0
            return Emitted(self.number, None, True)
        self.left -= 1
        return Emitted(self.number, token, self.left == 0, self.sampler.latest)


@dataclass
class Running:
    """A request that was admitted. weights: the state of those that all of it was computed with so
    far, None if there were several. pending: its tokens that are not computed, one at least; the
    logits of the last one give its next token."""

    request: Request
    session: Session
    pages: SequencePages
    weights: Hashable
    pending: list[int]

    def have(self, count: int, weights: Hashable, following: Sequence[int] = ()) -> None:
        """Its next tokens are in its pages, computed with weights in this state, and `following`
        come behind the last of them."""
        self.session.add(self.pending[:count])
        self.pending[:count] = following
        if weights != self.weights:
            self.weights = None
        if self.weights is not None:
            self.pages.note(self.session.tokens)


class Piece(NamedTuple):
    """What a step computes of a sequence: so many of its next tokens. reads: whether these are of a
    prompt. speaks: whether its next token comes of it."""

    running: Running
    tokens: int
    reads: bool
    speaks: bool


def in_passes(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Those of each pass of up to MAX_TOKENS tokens."""
    part: list[Piece] = []
    for each in pieces:
        if sum(other.tokens for other in part) + each.tokens > MAX_TOKENS:
            yield part
            part = []
        part.append(each)
    if part:
        yield part
