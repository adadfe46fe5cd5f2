"""Several sequences decoded together: each weight is read once for all of them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ternops.decoder.cache import PageArray, pages_of
from ternops.decoder.model import Model
from ternops.decoder.pace import Pace, shares
from ternops.decoder.perplexity import Scorer
from ternops.decoder.prefix_cache import PrefixCache, SequencePages
from ternops.decoder.requests import (
    Emitted,
    Flight,
    Piece,
    Request,
    RequestError,
    Running,
    in_passes,
    readers_of,
)
from ternops.decoder.sampler import Constraint, Sampler
from ternops.decoder.sampling import Sampling
from ternops.decoder.session import Session, WorkspacePool
from ternops.decoder.states import states_bytes
from ternops.decoder.workspace import MAX_TOKENS
from ternops.kernels.attention import POSITIONS
from ternops.memory import HoldsAddresses
from ternops.ranks.group import uninterrupted
from ternops.sizes import parse_size

__all__ = ["Batch", "Emitted", "RequestError"]

#: Of the logits of sequences that are scored, in one pass.
LOGITS_BYTES = 32 << 20


class Batch(HoldsAddresses):
    """Decodes up to `size` sequences together, and admits waiting ones as others end.

    A sequence's tokens are those that `Model.generate` yields, whatever else runs. Not for two
    Python threads at a time.

    Prompts are read beside the other sequences' tokens, a part in each step; several have equal
    parts. prefill_tokens: how many of their tokens while others wait for theirs, 1 to 512; by
    default as many as make a step at most twice as long, by the time that steps have taken.
    kv_memory: at most so many bytes of keys, values and states of delta nets, or "2GB" of them: a
    request is admitted when all that it may need is free. By default all find room, `size` times
    the context.
    Keys and values have pages of 64 positions. Sequences that begin alike, with the same delta,
    share them, and they are kept for later ones until others need the room (without kv_memory as
    many as the context has). States of delta nets are those of one position alone: models with
    any share nothing.
    Raises TypeError and ValueError, naming the argument.
    """

    def __init__(
        self,
        model: Model,
        size: int,
        *,
        kv_memory: int | str | None = None,
        prefill_tokens: int | None = None,
    ) -> None:
        if not 1 <= size <= MAX_TOKENS:
            raise ValueError(f"size={size}: expected 1 to {MAX_TOKENS}")
        if prefill_tokens is not None and not 1 <= prefill_tokens <= MAX_TOKENS:
            raise ValueError(f"prefill_tokens={prefill_tokens}: expected 1 to {MAX_TOKENS}")
        self._model = model
        self._size = size
        self._prefill_tokens = prefill_tokens
        self._waiting: deque[Request] = deque()
        # In the order of their admission.
        self._active: list[Running] = []
        self._workspaces = WorkspacePool(model)
        # Of passes that are under way together, and those that are.
        self._slots = model.split.stages
        self._flights: dict[int, Flight] = {}
        self._count = 0
        # Kept until a step is through: an exception in the middle of one loses no token.
        self._emitted: list[Emitted] = []
        self._errors: list[RequestError] = []
        self._most_outputs = max(size, LOGITS_BYTES // (4 * model.config.vocabulary))
        self._pace = Pace()
        self._page_bytes = size_of_page = model.page_bytes
        self._states_bytes = states_bytes(model.config)
        self._shares = not self._states_bytes
        kept, most = pages_of(model.config.context), None
        self._kv_memory: float = math.inf
        if kv_memory is not None:
            self._kv_memory = parse_size("kv_memory", kv_memory)
            least = size_of_page + self._states_bytes
            if self._kv_memory < least:
                raise ValueError(
                    f"kv_memory={kv_memory!r}: expected at least the {least} bytes of {POSITIONS} "
                    "positions"
                )
            kept = most = self._kv_memory // max(1, size_of_page)
        copy: Callable[[PageArray, PageArray], None] = np.copyto
        if model.group is not None:
            copy = model.group.copy
        self._cache = PrefixCache(model.new_page, most, kept if self._shares else 0, copy)

    def __len__(self) -> int:
        """Requests whose last token no step has given yet."""
        ended = sum(each.last for each in self._emitted)
        return len(self._waiting) + len(self._active) + ended + len(self._errors)

    @property
    def kv_bytes_used(self) -> int:
        """Bytes of keys, values and states of the requests that are decoded."""
        return self._cache.used * self._page_bytes + len(self._active) * self._states_bytes

    @property
    def kv_bytes_kept(self) -> int:
        """Bytes of keys and values that are kept for requests that begin alike."""
        return self._cache.unused * self._page_bytes

    def add(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int | None = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop_at_eos: bool = True,
        *,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        constraint: Constraint | None = None,
        logprobs: int | None = None,
        delta: str | None = None,
    ) -> int:
        """Add a sequence; returns its number. Arguments and errors as `Model.generate`; ValueError
        for one that may need more than kv_memory, too.

        max_new_tokens: None for as many as the context and kv_memory hold.
        logprobs: let `Emitted` tell the log-probability of each token and of so many of the
        likeliest, by the logits as they are, without penalties, temperature and the like.
        """
        tokens = self._model.check_tokens(token_ids)
        self._model.deltas.address(delta)
        most = self._room(len(tokens)) if max_new_tokens is None else max_new_tokens
        left = self._model.check_length(tokens, most)
        sampling = Sampling(
            temperature=temperature, top_p=top_p, seed=seed, top_k=top_k, min_p=min_p,
            repetition_penalty=repetition_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, logit_bias=logit_bias or {},
        )  # fmt: skip
        sampling.check_vocabulary(self._model.config.vocabulary)
        sampler = Sampler(sampling, tokens, constraint, logprobs)
        ends = self._model.config.eos if stop_at_eos else ()
        # The last token is given and not computed with.
        pages = pages_of(len(tokens) + max(left, 1) - 1)
        first = len(tokens) - 1
        return self._add(Request(self._count, tokens, first, left, sampler, ends, delta, pages))

    def score(self, token_ids: Sequence[int], start: int = 1, *, delta: str | None = None) -> int:
        """Add a sequence whose likelihood is wanted, and no more of it; returns its number.

        The `likelihood` of its only `Emitted` is that of token_ids[start:], each token given those
        before it: the same, bit for bit, alone and beside others. Of sequences that begin alike,
        up to `start` at most, that is computed once; add them one after another. There may be one
        token more than the context holds.
        Raises as `add`, and ValueError for a start below 1 or behind the last token.
        """
        count = len(token_ids)
        if not 1 <= start < count:
            raise ValueError(
                f"start={start}: expected 1 or more and less than the {count} of token_ids"
            )
        # The last token is scored and not computed with.
        tokens = self._model.check_tokens(token_ids[:-1])
        scorer = Scorer([*tokens[start:], *self._model.check_tokens(token_ids[-1:])])
        self._model.deltas.address(delta)
        pages = pages_of(len(tokens))
        return self._add(
            Request(self._count, tokens, start - 1, scorer.left, scorer, (), delta, pages)
        )

    def _room(self, tokens: int) -> int:
        """How many new ones may come behind so many, one at least, before kv_memory is full."""
        positions = self._model.config.context
        if self._kv_memory < math.inf and self._page_bytes:
            pages = (self._kv_memory - self._states_bytes) // self._page_bytes
            positions = min(positions, int(pages) * POSITIONS)
        return max(1, positions - tokens + 1)

    def _add(self, request: Request) -> int:
        needed = request.pages * self._page_bytes + self._states_bytes
        if needed > self._kv_memory:
            is_scored = isinstance(request.reader, Scorer)
            new = "" if is_scored else f" and up to {request.left} new ones"
            raise ValueError(
                f"token_ids: {len(request.prompt)} tokens{new} take {needed} bytes of "
                f"keys and values, expected at most kv_memory={self._kv_memory}"
            )
        self._waiting.append(request)
        self._count += 1
        return request.number

    def cancel(self, number: int) -> None:
        """End a request at once: no step gives a token of it any more, and its memory is free. It
        does nothing for one that has ended. Raises ValueError for a number that `add` never gave.
        """
        if not 0 <= number < self._count:
            raise ValueError(f"number={number}: expected that of a request, as `add` gave it")
        self._waiting = deque(each for each in self._waiting if each.number != number)
        self._emitted = [each for each in self._emitted if each.request != number]
        self._errors = [each for each in self._errors if each.request != number]
        self._end(lambda each: each.request.number == number)

    def step(self) -> list[Emitted]:
        """Admit sequences up to `size`; then compute, in one pass, the next token of each whose
        prompt is read, and read a part of the prompts of others.

        Raises RequestError, a ValueError with the number of a request, where that one cannot go on:
        its logits are NaN, or its constraint allows nothing. It has ended then, the others have
        not, and the next step gives what this one has found of them, too.
        Where processes have layers in turn, each has a pass of other sequences at a time, and a
        step gives the tokens of passes that the one before has begun.
        """
        if not self._errors:
            self._admit()
            start, pieces = time.perf_counter(), list[Piece]()
            try:
                for slot in range(self._slots):
                    pieces += self._pass(slot)
            finally:
                self._end(lambda each: each.request.left == 0)
            read = sum(each.tokens for each in pieces if each.reads)
            decoding = sum(not each.reads for each in pieces)
            self._pace.took(decoding, read, time.perf_counter() - start)
        if self._errors:
            raise self._errors.pop(0)
        emitted, self._emitted = self._emitted, []
        return emitted

    def _admit(self) -> None:
        """Those that have waited longest, as long as there is a place and memory for the next."""
        while self._waiting and len(self._active) < self._size:
            request = self._waiting[0]
            if request.left == 0:
                self._emitted.append(Emitted(request.number, None, True))
            elif not self._begin(request):
                return
            self._waiting.popleft()

    def _begin(self, request: Request) -> bool:
        """Whether there is memory for all that a request may need; then it is admitted."""
        weights = self._model.state_of_weights(request.delta)
        pages = SequencePages(self._cache, weights)
        session = Session(self._model, self._workspaces, request.delta, pages.page)
        slots = [each.slot for each in self._active]
        slot = min(range(self._slots), key=slots.count)
        running = Running(request, session, pages, weights, list(request.prompt), slot)
        try:
            if self._shares:
                running.share()
            if self._needed([*self._active, running]) <= self._kv_memory:
                self._active.append(running)
                return True
        except BaseException:
            pages.let_go()
            raise
        pages.let_go()
        return False

    def _needed(self, every: list[Running]) -> int:
        """Bytes that sequences have and may still need."""
        pages = self._cache.used + sum(each.request.pages - len(each.pages) for each in every)
        return pages * self._page_bytes + len(every) * self._states_bytes

    def _end(self, ends: Callable[[Running], bool]) -> None:
        """Let go of the sequences of which that is so."""
        for each in self._active:
            if ends(each):
                each.pages.let_go()
        self._active = [each for each in self._active if not ends(each)]

    def _plan(self, slot: int) -> list[Piece]:
        """What a step computes of the sequences of a slot."""
        active = [each for each in self._active if each.slot == slot]
        decoding = [each for each in active if each.decodes]
        readers = readers_of(active, self._shares)
        most = MAX_TOKENS
        if decoding:
            most = self._prefill_tokens or self._pace.most(len(decoding), MAX_TOKENS)
        pieces = [each.piece(1, False) for each in decoding]
        wanted = [
            min(len(each.pending), len(each.sharable) + self._most_outputs) for each in readers
        ]
        for each, count in zip(readers, shares(most, wanted), strict=True):
            if count:
                pieces.append(each.piece(count, True))
        # Tokens with the same delta are to be neighbours.
        return sorted(pieces, key=lambda each: each.running.request.delta or "")

    def _pass(self, slot: int) -> list[Piece]:
        """Take what the last pass of a slot has computed, and begin the next one, or have all of it
        done; what that computes."""
        self._land(slot)
        pieces = self._plan(slot)
        for part in in_passes(pieces, self._most_outputs):
            self._land(slot)
            self._start(part, slot)
        if self._slots == 1:
            self._land(slot)
        return pieces

    def _start(self, pieces: list[Piece], slot: int) -> None:
        workspace = self._workspaces(sum(each.tokens for each in pieces), slot)
        for each in pieces:
            each.running.session.catch_up()
        tokens, outputs = 0, list[int]()
        for each in pieces:
            running = each.running
            running.session.place(workspace, tokens, running.pending[: each.tokens])
            tokens += each.tokens
            outputs += range(tokens - each.outputs, tokens)
        tops = [each.running.request.exact_top for each in pieces if each.outputs]
        exact_top = 0 if 0 in tops else max(tops, default=1)
        tile = workspace.tile_tokens if tokens > len(pieces) else 1
        if self._slots == 1:
            logits = workspace.run(tokens, outputs, exact_top, tile)
            self._flights[slot] = Flight(pieces, workspace, logits)
            return
        with uninterrupted():  # or nobody would know that it has begun
            workspace.start(tokens, outputs, exact_top, tile)
            self._flights[slot] = Flight(pieces, workspace, None)

    def _land(self, slot: int) -> None:
        if slot not in self._flights:
            return
        pieces, workspace, logits = self._flights[slot]
        if logits is None:
            with uninterrupted():
                logits = workspace.finish()
                del self._flights[slot]
        else:
            del self._flights[slot]
        active = set(map(id, self._active))
        done = 0
        for each in pieces:
            if id(each.running) in active:  # it was not cancelled meanwhile
                self._take(each, logits[done : done + each.outputs])
            done += each.outputs
        if self._slots > 1:
            self._end(lambda each: each.request.left == 0)

    def _take(self, piece: Piece, logits: npt.NDArray[np.float32]) -> None:
        """What comes of a piece that is computed."""
        running, request = piece.running, piece.running.request
        try:
            following = request.read(logits)
        except Exception as error:  # a constraint may be anybody's
            request.left = 0
            self._errors.append(RequestError(request.number, error))
            self._errors[-1].__cause__ = error
            return
        weights = self._model.state_of_weights(request.delta)
        running.have(piece.tokens, weights, following)
        self._emitted += request.emit(following)
