"""A batch's requests: what was asked for, what runs, and what a step computes of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.logprobs import Logprobs
from ternops.decoder.perplexity import Likelihood, Scorer
from ternops.decoder.prefix_cache import MIN_COPIED, SequencePages
from ternops.decoder.sampler import Sampler
from ternops.decoder.session import Session
from ternops.decoder.workspace import MAX_TOKENS, Workspace
from ternops.kernels.attention import POSITIONS


class RequestError(ValueError):
    """What has gone wrong with one request alone, by `request`, its number: it has ended."""

    def __init__(self, request: int, error: Exception) -> None:
        super().__init__(f"request {request}: {error}")
        self.request = request


class Emitted(NamedTuple):
    """A token of a request; `last` if it is its last one. token is None where none came at all.

    logprobs: of a token of a request that was added with `logprobs`. likelihood: of a sequence that
    was to be scored.
    """

    request: int
    token: int | None
    last: bool
    logprobs: Logprobs | None = None
    likelihood: Likelihood | None = None


@dataclass
class Request:
    """A sequence that was added. prompt: the tokens that are computed with from the beginning.
    first: of these the first one whose logits are wanted. left: tokens that may still be emitted,
    or are to be scored. reader: what takes logits. pages: of the whole."""

    number: int
    prompt: list[int]
    first: int
    left: int
    reader: Sampler | Scorer
    ends: tuple[int, ...]
    delta: str | None
    pages: int

    @property
    def exact_top(self) -> int:
        """How many of the largest logits must be exact, 0 for all."""
        return self.reader.exact_top if isinstance(self.reader, Sampler) else 0

    def read(self, logits: npt.NDArray[np.float32]) -> tuple[int, ...]:
        """Take the next rows of float32 (some, vocabulary) logits; the token that follows, if one
        does."""
        if isinstance(self.reader, Sampler):
            return tuple(map(self.reader, logits))
        self.reader(logits)
        return ()

    def emit(self, following: tuple[int, ...]) -> list[Emitted]:
        """What to say behind logits that were read."""
        if isinstance(self.reader, Scorer):
            self.left = self.reader.left
            is_done = self.left == 0
            return [Emitted(self.number, None, True, None, self.reader.found)] if is_done else []
        found = []
        for token in following:
            if self.left == 0 or token in self.ends:
                self.left = 0
                found.append(Emitted(self.number, None, True))
            else:
                self.left -= 1
                found.append(Emitted(self.number, token, self.left == 0, self.reader.latest))
        return found


@dataclass
class Running:
    """A request that was admitted. weights: the state of those that all of it was computed with so
    far, None if there were several. pending: its tokens that are not computed, one at least. slot:
    of passes that are under way together, in which it is."""

    request: Request
    session: Session
    pages: SequencePages
    weights: Hashable
    pending: list[int]
    slot: int = 0

    @property
    def decodes(self) -> bool:
        """Whether its next pass gives its next token, and computes nothing else."""
        return len(self.pending) == 1 and isinstance(self.request.reader, Sampler)

    @property
    def sharable(self) -> list[int]:
        """The pending tokens whose logits nobody wants."""
        return self.pending[: max(0, self.request.first - self.session.position)]

    def share(self) -> None:
        """Have the whole pages that others have computed of what comes next."""
        if count := self.pages.share(self.sharable):
            self.have(count * POSITIONS, self.weights)

    def piece(self, tokens: int, reads: bool) -> Piece:
        """So many of its next tokens."""
        outputs = self.session.position + tokens - self.request.first
        return Piece(self, tokens, reads, min(max(0, outputs), tokens))

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
    prompt. outputs: of how many, the last ones, logits are wanted."""

    running: Running
    tokens: int
    reads: bool
    outputs: int


class Flight(NamedTuple):
    """A pass: what it computes, where, and its logits, None as long as it has not ended."""

    pieces: list[Piece]
    workspace: Workspace
    logits: npt.NDArray[np.float32] | None


def readers_of(active: list[Running], shares: bool) -> list[Running]:
    """Those whose prompts are read now. One whose next page is just read for another one waits and
    then has that, if they share what begins alike."""
    found: list[Running] = []
    being_read: set[Hashable] = set()
    for each in active:
        if each.decodes:
            continue
        if shares and each.weights is not None:
            if is_between := each.session.position == len(each.pages) * POSITIONS:
                each.share()
            number = each.session.position // POSITIONS
            start, first = number * POSITIONS, each.request.first
            tokens = each.request.prompt[start : min(start + POSITIONS, first)]
            page = each.pages.place(number), tuple(tokens)
            if is_between and page in being_read and len(tokens) > MIN_COPIED:
                continue
            if is_between and (count := each.pages.copy(each.sharable)):
                each.have(count, each.weights)
            if each.session.position < first:
                being_read.add(page)
        found.append(each)
    return found


def in_passes(pieces: list[Piece], most_outputs: int) -> Iterator[list[Piece]]:
    """Those of each pass of up to MAX_TOKENS tokens and so many outputs."""
    part: list[Piece] = []
    tokens = outputs = 0
    for each in pieces:
        tokens, outputs = tokens + each.tokens, outputs + each.outputs
        if part and (tokens > MAX_TOKENS or outputs > most_outputs):
            yield part
            part, tokens, outputs = [], each.tokens, each.outputs
        part.append(each)
    if part:
        yield part
