"""From the tokens of the engine to the texts of the choices of one request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ternops.decoder.batch import Emitted
from ternops.decoder.logprobs import Logprobs
from ternops.decoder.stops import StoppedText
from ternops.serve.answers import FinishReason, Usage
from ternops.serve.constraint import Constraint
from ternops.serve.engine import Engine
from ternops.serve.errors import ApiError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Wish:
    """One sequence: its prompt, what `Batch.add` takes beside it, and how its text ends.

    continues: whether the text goes on with the prompt's, whose last blank may then matter.
    """

    prompt: list[int]
    settings: dict[str, Any]
    stops: Sequence[str] = ()
    continues: bool = False

    @property
    def constraint(self) -> Constraint | None:
        return self.settings.get("constraint")


@dataclass
class Piece:
    """What some more tokens of a choice give: new text, which may be empty; known: those of which
    log-probabilities are wanted; finish: why one was the last."""

    choice: int
    text: str = ""
    known: list[tuple[int, Logprobs]] = field(default_factory=list)
    finish: FinishReason | None = None


class _Choice:
    """The text of one sequence."""

    def __init__(self, tokenizer: Tokenizer, wish: Wish) -> None:
        self._text = StoppedText(tokenizer, wish.prompt if wish.continues else [], wish.stops)
        self.constraint = wish.constraint
        self.count = 0
        self.has_ended = False

    def feed(self, emitted: Emitted, piece: Piece) -> None:
        """Add one more token to a piece."""
        self.count += emitted.token is not None
        text, stopped = self._text.take(emitted.token, emitted.last)
        piece.text += text
        if emitted.token is not None and emitted.logprobs is not None:
            piece.known.append((emitted.token, emitted.logprobs))
        if stopped or (emitted.last and emitted.token is None):
            piece.finish = "stop"
        elif emitted.last:
            piece.finish = "length"
        self.has_ended = piece.finish is not None


class Generation:
    """The sequences of one request under way: ``async for piece in generation``.

    Raises ApiError 429 if too much is under way. `close` it, whatever happens.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, wishes: Sequence[Wish]) -> None:
        self._choices = [_Choice(tokenizer, each) for each in wishes]
        self._tokens = engine.submit([(each.prompt, each.settings) for each in wishes])

    async def __aiter__(self) -> AsyncIterator[Piece]:
        async for events in self._tokens:
            pieces: dict[int, Piece] = {}
            for number, emitted in events:
                choice = self._choices[number]
                if choice.has_ended:  # by a stop string; the engine was some steps ahead
                    continue
                piece = pieces.setdefault(number, Piece(number))
                choice.feed(emitted, piece)
                if choice.constraint and choice.constraint.error:
                    raise ApiError(
                        400, f"response_format: {choice.constraint.error}", "response_format"
                    )
                if piece.finish and not emitted.last:
                    self._tokens.close(number)
            for piece in pieces.values():
                yield piece
            if all(each.has_ended for each in self._choices):
                return

    def usage(self, prompt: int) -> Usage:
        """Tokens so far, behind so many of the prompts, which choices share."""
        count = sum(each.count for each in self._choices)
        return Usage(prompt_tokens=prompt, completion_tokens=count, total_tokens=prompt + count)

    def close(self) -> None:
        """Cancel what is left."""
        self._tokens.close()
