"""Several sequences decoded together: each weight is read once for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.logprobs import Logprobs
from ternops.decoder.model import Model
from ternops.decoder.sampler import Constraint, Sampler
from ternops.decoder.sampling import Sampling
from ternops.decoder.session import Session, WorkspacePool
from ternops.decoder.workspace import MAX_TOKENS
from ternops.memory import HoldsAddresses


class Emitted(NamedTuple):
    """A token of a request; `last` if it is its last one. token is None where none came at all.

    logprobs: of a token of a request that was added with `logprobs`.
    """

    request: int
    token: int | None
    last: bool
    logprobs: Logprobs | None = None


@dataclass
class _Request:
    """A sequence that was added. left: tokens that may still be emitted."""

    number: int
    prompt: list[int]
    left: int
    sampler: Sampler
    ends: tuple[int, ...]
    delta: str | None

    def emit(self, token: int) -> Emitted:
        """What to say of the next token that was chosen."""
        if self.left == 0 or token in self.ends:
            self.left = 0
            return Emitted(self.number, None, True)
        self.left -= 1
        return Emitted(self.number, token, self.left == 0, self.sampler.latest)


@dataclass
class _Running:
    """A request that was admitted, its session, and the token to decode next."""

    request: _Request
    session: Session
    token: int


class Batch(HoldsAddresses):
    """Decodes up to `size` sequences together, and admits waiting ones as others end.

    A sequence's tokens are those that `Model.generate` yields, whatever else runs. Not for two
    Python threads at a time.
    """

    def __init__(self, model: Model, size: int) -> None:
        if not 1 <= size <= MAX_TOKENS:
            raise ValueError(f"size={size}: expected 1 to {MAX_TOKENS}")
        self._model = model
        self._size = size
        self._waiting: deque[_Request] = deque()
        self._active: list[_Running] = []
        # Sessions are used again: their memory is mapped, and their kernels are known.
        self._idle: list[Session] = []
        self._pool = WorkspacePool(model)
        self._count = 0
        # Kept until a step is through: an exception in the middle of one loses no token.
        self._emitted: list[Emitted] = []

    def __len__(self) -> int:
        """Requests whose last token no step has given yet."""
        ended = sum(each.last for each in self._emitted)
        return len(self._waiting) + len(self._active) + ended

    def add(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int = 128,
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
        """Add a sequence; returns its number. Arguments and errors as `Model.generate`.

        logprobs: let `Emitted` tell the log-probability of each token and of so many of the
        likeliest, by the logits as they are, without penalties, temperature and the like.
        """
        tokens = self._model.check_tokens(token_ids)
        self._model.deltas.address(delta)
        left = self._model.check_length(tokens, max_new_tokens)
        sampling = Sampling(
            temperature=temperature, top_p=top_p, seed=seed, top_k=top_k, min_p=min_p,
            repetition_penalty=repetition_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, logit_bias=logit_bias or {},
        )  # fmt: skip
        sampling.check_vocabulary(self._model.config.vocabulary)
        sampler = Sampler(sampling, tokens, constraint, logprobs)
        ends = self._model.config.eos if stop_at_eos else ()
        self._waiting.append(_Request(self._count, tokens, left, sampler, ends, delta))
        self._count += 1
        return self._count - 1

    def step(self) -> list[Emitted]:
        """Admit sequences up to `size`, then decode a token of each in one pass."""
        while self._waiting and len(self._active) < self._size:
            self._admit(self._waiting[0])
            self._waiting.popleft()
        try:
            self._decode()
        finally:
            self._idle += [each.session for each in self._active if each.request.left == 0]
            self._active = [each for each in self._active if each.request.left > 0]
        emitted, self._emitted = self._emitted, []
        return emitted

    def _admit(self, request: _Request) -> None:
        if request.left == 0:
            self._emitted.append(Emitted(request.number, None, True))
            return
        session = self._idle.pop() if self._idle else Session(self._model, self._pool)
        session.delta, session.position = request.delta, 0
        token = request.sampler(session.read(request.prompt, request.sampler.exact_top))
        self._emitted.append(request.emit(token))
        if self._emitted[-1].last:
            self._idle.append(session)
        else:
            self._active.append(_Running(request, session, token))
            # Tokens with the same delta are to be neighbours.
            self._active.sort(key=lambda each: each.request.delta or "")

    def _decode(self) -> None:
        for start in range(0, len(self._active), MAX_TOKENS):
            running = self._active[start : start + MAX_TOKENS]
            for each, logits in zip(running, self._pass(running), strict=True):
                token = each.request.sampler(logits)
                each.session.add(each.token)
                each.token = token
                self._emitted.append(each.request.emit(token))

    def _pass(self, running: list[_Running]) -> npt.NDArray[np.float32]:
        workspace = self._pool(len(running))
        for each in running:
            each.session.catch_up()
        for at, each in enumerate(running):
            each.session.place(workspace, at, each.token)
        tops = [each.request.sampler.exact_top for each in running]
        exact_top, count = 0 if 0 in tops else max(tops), len(running)
        return workspace.run(count, range(count), exact_top, 1)
