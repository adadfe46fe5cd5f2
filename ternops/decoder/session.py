"""One sequence that is decoded: its cache, and the memory of its passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.cache import Cache, PageArray, kv_cache_bytes
from ternops.decoder.config import A48
from ternops.decoder.loaded import LoadedModel
from ternops.decoder.workspace import MAX_TOKENS, Workspace, size_for
from ternops.memory import HoldsAddresses

Array = npt.NDArray[Any]
#: Tokens whose logits are in memory at a time: they take 4 bytes a word of the vocabulary each.
LOGITS_AT_ONCE = 64
#: Called with how many tokens of a prompt are read, and how many it has.
Progress = Callable[[int, int], None]


class WorkspacePool(HoldsAddresses):
    """The workspaces of a model, each made when it is first needed."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._workspaces: dict[Any, Workspace] = {}
        # Passes of two pools may be under way together.
        self._first = 0 if model.group is None else model.group.new_slots(self)

    def __call__(self, tokens: int, slot: int = 0) -> Workspace:
        """The one for a pass of this many tokens. slot: of passes that are under way together."""
        size = size_for(self._model, tokens)
        key = size, slot
        if key not in self._workspaces:
            self._workspaces[key] = Workspace(self._model, *size, self._first + slot)
        return self._workspaces[key]

    @property
    def active_share(self) -> float:
        """Of the weights of linear layers: what tokens so far have used; 1 where nothing counts."""
        config = self._model.config
        found = [each.active for each in self._workspaces.values()]
        tokens = sum(count for _, count in found)
        if config.activation_quantization != A48 or not tokens:
            return 1.0
        return sum(weights for weights, _ in found) / (tokens * config.linear_weights)


class Session(HoldsAddresses):
    """Decodes one sequence, with the fine-tune `delta` or the base. Not for two Python threads at a
    time; each may have its own.

    new_page: makes the pages of its cache, see `Cache`. tokens: those that the cache holds. passes:
    how many have been made. rescored, screened: rows that a screened head has computed in fp16 so
    far, and for how many tokens.
    """

    def __init__(
        self, model: LoadedModel, pool: WorkspacePool | None = None, delta: str | None = None,
        new_page: Callable[[int], PageArray] | None = None,
    ) -> None:  # fmt: skip
        self._model = model
        new_page = new_page or (lambda number: model.new_page())
        self.cache = Cache(
            model.config, model.cache, new_page=new_page, split=model.split,
            whole=model.whole_pages(),
        )  # fmt: skip
        self._pool = pool or WorkspacePool(model)
        self._alone = self._pool(1)
        self.tokens: list[int] = []
        self.passes = self.rescored = self.screened = 0
        self._delta, self._tuned = delta, model.deltas.address(delta)

    @property
    def delta(self) -> str | None:
        """The fine-tune that it decodes with, None for the base; another one begins anew."""
        return self._delta

    @delta.setter
    def delta(self, name: str | None) -> None:
        tuned = self._model.deltas.address(name)
        if name != self._delta:
            self.position = 0
        self._delta, self._tuned = name, tuned

    @property
    def position(self) -> int:
        """How many tokens the cache holds; set it to fewer to go back.

        States of delta nets are then those before the latest pass of several tokens, or none, and
        the next pass computes the tokens in between once more.
        """
        return len(self.tokens)

    @position.setter
    def position(self, value: int) -> None:
        if not 0 <= value <= len(self.tokens):
            raise ValueError(f"position={value}: expected 0 to {len(self.tokens)}")
        del self.tokens[value:]
        if self.cache.states:
            self.cache.states.go_back(value)

    @property
    def model(self) -> LoadedModel:
        """The one that it decodes with."""
        return self._model

    def restore(self, tokens: list[int], content: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Hold these tokens, with what `cache.content` gave when a session of the same model and
        kind of cache held them; ValueError for content of another length, which changes nothing."""
        self.cache.check_content(len(tokens), content)
        self.position = 0
        self.cache.restore(len(tokens), content)
        self.tokens[:] = tokens

    @property
    def room(self) -> int:
        """How many more tokens the context holds."""
        return self._model.config.context - len(self.tokens)

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of cache that the next token reads."""
        return kv_cache_bytes(self._model.config, self._model.cache, self.position + 1)

    @property
    def bytes_saved(self) -> int:
        """Of `up` and `down`: the mean of what single tokens have left out so far."""
        return self._model.sparsity.saved(*self.shares_read)

    @property
    def shares_read(self) -> tuple[float, float]:
        """Of the rows of `up` and of the columns of `down`: what single tokens have read so far."""
        return self._alone.shares_read

    @property
    def active_share(self) -> float:
        """With activations of a4.8: the share of the linear layers' weights that tokens so far have
        used, whose input's code, and of `up` whose gate, is not 0; 1 for other models. Of all
        sessions that share a pool."""
        return self._pool.active_share

    def profile(self) -> npt.NDArray[np.int64]:
        """Add up nanoseconds of single tokens from now on, by `records.PARTS`; returns the sums."""
        return self._alone.profile()

    def step(self, token: int, wants_logits: bool = True, exact_top: int = 0) -> Array:
        """Decode one token; float32 (vocabulary,) logits, overwritten by the next step.

        exact_top: how many of the largest logits must be exact (0: all); smaller ones may be -inf.
        """
        # Few Python objects are touched here: the weights have driven them out of the caches.
        logits = self._pass(self._alone, (token,), _ALONE if wants_logits else _NOTHING, exact_top)
        return logits[0] if wants_logits else logits

    def extend(self, tokens: Sequence[int], outputs: int, exact_top: int = 0) -> Array:
        """Decode up to MAX_TOKENS tokens in one pass; float32 logits of the last `outputs`."""
        count = len(tokens)
        if not 1 <= count <= self.max_tokens:
            raise ValueError(f"tokens: {count} of them, expected 1 to {self.max_tokens} in a pass")
        if not 0 <= outputs <= count:
            raise ValueError(f"outputs={outputs}: expected 0 to {count}")
        workspace = self._alone if count == 1 else self._pool(count)
        return self._pass(workspace, tokens, range(count - outputs, count), exact_top)

    def each_logits(self, tokens: Sequence[int]) -> Iterator[Array]:
        """Decode any number of tokens; float32 (some, vocabulary) logits after each of them, up to
        LOGITS_AT_ONCE at a time, overwritten by the next ones."""
        for start in range(0, len(tokens), LOGITS_AT_ONCE):
            part = tokens[start : start + LOGITS_AT_ONCE]
            yield self.extend(part, len(part))

    def read(
        self, tokens: Sequence[int], exact_top: int = 0, progress: Progress | None = None
    ) -> Array:
        """Decode any number of tokens, pass by pass; float32 (vocabulary,) logits of the last."""
        count, most = len(tokens), self.max_tokens
        if not count:
            raise ValueError("tokens: empty, expected at least one")
        for start in range(0, count, most):
            part = tokens[start : start + most]
            logits = self.extend(part, int(start + most >= count), exact_top)
            if progress:
                progress(start + len(part), count)
        return logits[0]

    @property
    def max_tokens(self) -> int:
        """Of one pass."""
        return MAX_TOKENS

    def _pass(
        self, workspace: Workspace, tokens: Sequence[int], outputs: Any, exact_top: int
    ) -> Array:
        position = len(self.tokens)
        count = len(tokens)
        if position + count > self._model.config.context:
            raise ValueError(
                f"token {position + count - 1}: expected at most the context of "
                f"{self._model.config.context}"
            )
        most = self._model.config.vocabulary - 1
        if not 0 <= min(tokens) <= max(tokens) <= most:
            raise ValueError(f"tokens: {min(tokens)} to {max(tokens)}, expected 0 to {most}")
        self.passes += 1
        ran: Sequence[int] = tokens
        if missing := self.catch_up(min(_MAX_BEHIND, MAX_TOKENS - count)):
            ran, position = [*missing, *tokens], position - len(missing)
            outputs = [len(missing) + each for each in outputs]
            workspace = self._pool(len(ran))
        logits = self._run(workspace, ran, position, outputs, exact_top)
        self.tokens += tokens
        if len(outputs) and self._model.head.screens(exact_top):
            self.rescored += workspace.take_computed()
            self.screened += len(outputs)
        return logits

    def _run(
        self, workspace: Workspace, tokens: Sequence[int], position: int, outputs: Any,
        exact_top: int,
    ) -> Array:  # fmt: skip
        """A pass."""
        self._place(workspace, 0, tokens, position)
        logits = workspace.run(len(tokens), outputs, exact_top, workspace.tile_tokens)
        if self.cache.states:
            self.cache.states.position = position + len(tokens)
        return logits

    def _place(self, workspace: Workspace, at: int, tokens: Sequence[int], position: int) -> None:
        """Before a pass of several tokens, states of delta nets are copied."""
        states, count = self.cache.states, len(tokens)
        self.cache.reserve(position + count)
        if states:
            if count > 1:
                states.keep()
            states.position = None
        workspace.place(at, tokens, position, self.cache, delta=self._tuned)

    def catch_up(self, most: int = 0) -> Sequence[int]:
        """Bring the states of delta nets to where the tokens are, unless they lack at most so many;
        gives these."""
        if not self.cache.states:
            return ()
        start = self.cache.states.go_back(len(self.tokens))
        missing = self.tokens[start:]
        if len(missing) <= most:
            return missing
        for at in range(0, len(missing), MAX_TOKENS):
            part = missing[at : at + MAX_TOKENS]
            self._run(self._pool(len(part)), part, start + at, _NOTHING, 0)
        return ()

    def place(self, workspace: Workspace, at: int, tokens: Sequence[int]) -> None:
        """Let rows from `at` on of the next pass of several sequences be the next tokens of this
        one, which has caught up; `add` them after that."""
        self._place(workspace, at, tokens, len(self.tokens))

    def add(self, tokens: Sequence[int]) -> None:
        """Tokens that were placed, or that its pages hold already, are computed."""
        self.tokens += tokens
        if self.cache.states:
            self.cache.states.position = len(self.tokens)


_ALONE, _NOTHING = range(1), range(0)
# Tokens that a pass computes once more beside its own, which cost it little.
_MAX_BEHIND = 16
