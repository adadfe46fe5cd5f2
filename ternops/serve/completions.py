"""/v1/completions: texts that are continued, with the log-probabilities of every token."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ternops.decoder.logprobs import Logprobs
from ternops.decoder.text import TextDecoder
from ternops.serve import echo
from ternops.serve.answers import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    FinishReason,
    Usage,
    to_dict,
)
from ternops.serve.chunks import Chunks
from ternops.serve.generation import Generation, Piece, Wish
from ternops.serve.http import EventStream, read_body, unless_gone
from ternops.serve.requests import CompletionRequest
from ternops.serve.serving import Serving

if TYPE_CHECKING:
    from tokenizers import Tokenizer


async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    serving: Serving = request.app.state.serving
    asked = await read_body(request, CompletionRequest, serving.limits)
    serving.check_model(asked.model)
    prompts = await asyncio.to_thread(_tokens, serving, asked)
    answer = _Answer(serving, asked, prompts)
    if asked.stream:
        return EventStream(answer.events(), answer.close)
    return await unless_gone(request, answer.whole())


def _tokens(serving: Serving, asked: CompletionRequest) -> list[list[int]]:
    """Those of each prompt."""
    return [
        serving.prompts.of_text(each)
        if isinstance(each, str)
        else serving.prompts.checked(each, "prompt")
        for each in asked.prompts
    ]


class _Offsets:
    """Where in the text of one choice its tokens begin. prompt: as of `TextDecoder`."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int]) -> None:
        self._tokenizer, self._prompt = tokenizer, prompt
        self._length = 0

    @functools.cached_property
    def _decoder(self) -> TextDecoder:
        """Of those alone that are asked for."""
        return TextDecoder(self._tokenizer, self._prompt)

    def take(self, token: int, text: str) -> int:
        """Of one more token, with its text alone. One amid a character begins where that does."""
        before = self._length
        self._length += len(self._decoder.push(token))
        # What was held back until now is not this one's.
        return max(before, self._length - len(text))


class _Said:
    """A part of the text of one choice, with its tokens."""

    def __init__(self, serving: Serving, offsets: _Offsets) -> None:
        self._vocabulary = serving.vocabulary
        self.offsets = offsets
        self.text = ""
        self.finish: FinishReason | None = None
        # As `CompletionLogprobs`.
        self.logprobs: dict[str, list[Any]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip

    def feed(self, piece: Piece) -> None:
        self.text += piece.text
        self.finish = piece.finish
        for token, known in piece.known:
            self.add_token(token, known)

    def add_token(self, token: int, known: Logprobs | None) -> None:
        """known: None of a first token, of which nothing is."""
        found, text = self.logprobs, self._vocabulary.text_of(token)
        found["tokens"].append(text)
        found["text_offset"].append(self.offsets.take(token, text))
        likely = known and self._vocabulary.likely(token, known.token)
        found["token_logprobs"].append(likely.logprob if likely else None)
        found["top_logprobs"].append(self._vocabulary.by_text(token, known) if known else None)


class _Answer:
    """The answer to one request, whole or as events. Choices of a prompt are neighbours."""

    def __init__(
        self, serving: Serving, asked: CompletionRequest, prompts: list[list[int]]
    ) -> None:
        self._serving, self._asked, self._prompts = serving, asked, prompts
        self._chunks = Chunks("cmpl", "text_completion", serving.name, asked.wants_usage)
        self._each = asked.n or 1
        tokenizer = serving.prompts.tokenizer
        self._said = [
            _Said(serving, _Offsets(tokenizer, [] if asked.echo else prompt))
            for prompt in prompts for _ in range(self._each)
        ]  # fmt: skip
        self._generation: Generation | None = None
        if asked.max_tokens != 0:
            wishes = [self._wish(prompt, each) for prompt in prompts for each in range(self._each)]
            self._generation = serving.generate(wishes)

    def _wish(self, prompt: list[int], choice: int) -> Wish:
        asked = self._asked
        settings = self._serving.settings(asked, asked.max_tokens, choice)
        if asked.logprobs is not None:
            settings["logprobs"] = asked.logprobs
        return Wish(prompt, settings, asked.stops, continues=True)

    def close(self) -> None:
        """Cancel what is left."""
        if self._generation:
            self._generation.close()

    async def whole(self) -> Response:
        """The answer in one."""
        try:
            await self._echo()
            if self._generation:
                async for piece in self._generation:
                    self._said[piece.choice].feed(piece)
        finally:
            self.close()
        choices = [self._choice(number, said) for number, said in enumerate(self._said)]
        answer = Completion(**self._chunks.identity, choices=choices, usage=self._usage())
        return JSONResponse(to_dict(answer))

    async def events(self) -> AsyncIterator[bytes]:
        """The answer piece by piece, with the echo before all else."""
        await self._echo()
        if self._asked.echo or not self._generation:
            for number, said in enumerate(self._said):
                if not self._generation:
                    said.finish = "length"
                yield self._event(number, said)
        async for piece in self._generation or _nothing():
            said = _Said(self._serving, self._said[piece.choice].offsets)
            said.feed(piece)
            if said.text or said.logprobs["tokens"] or said.finish:
                yield self._event(piece.choice, said)
        if self._asked.wants_usage:
            yield self._chunks.of_usage(self._usage())

    async def _echo(self) -> None:
        """Let every choice begin with its prompt."""
        asked, serving = self._asked, self._serving
        if not asked.echo:
            return
        for number, prompt in enumerate(self._prompts):
            known: Sequence[Logprobs | None] = ()
            if asked.logprobs is not None:
                work = echo.parts(serving.model, serving.delta, prompt, asked.logprobs)
                known = [None, *(each for part in await serving.engine.call(work) for each in part)]
            text = self._text_of(number)
            for said in self._said[number * self._each : (number + 1) * self._each]:
                said.text = text
                for token, each in zip(prompt, known, strict=False):
                    said.add_token(token, each)

    def _text_of(self, number: int) -> str:
        """A prompt's text, as it was given or as its tokens have it."""
        given = self._asked.prompts[number]
        if isinstance(given, str):
            return given
        decoder = TextDecoder(self._serving.prompts.tokenizer, [])
        return "".join(map(decoder.push, given)) + decoder.end()

    def _choice(self, number: int, said: _Said) -> CompletionChoice:
        wants = self._asked.logprobs is not None
        return CompletionChoice(
            index=number, text=said.text,
            logprobs=CompletionLogprobs(**said.logprobs) if wants else None,
            finish_reason=said.finish or "length",
        )  # fmt: skip

    def _event(self, number: int, said: _Said) -> bytes:
        logprobs = said.logprobs if self._asked.logprobs is not None else None
        return self._chunks.of_choice(number, {"text": said.text}, logprobs, said.finish)

    def _usage(self) -> Usage:
        count = sum(map(len, self._prompts))
        if self._generation:
            return self._generation.usage(count)
        return Usage(prompt_tokens=count, completion_tokens=0, total_tokens=count)


async def _nothing() -> AsyncIterator[Piece]:
    return
    yield
