"""/v1/chat/completions: the next message of a chat."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ternops.serve import tools
from ternops.serve.answers import (
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    FinishReason,
    TokenLogprob,
    ToolCall,
    to_dict,
)
from ternops.serve.chunks import Chunks
from ternops.serve.generation import Generation, Piece, Wish
from ternops.serve.http import EventStream, read_body, unless_gone
from ternops.serve.requests import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NamedTool
from ternops.serve.serving import Serving


async def chat_completions(request: Request) -> Response:
    """POST /v1/chat/completions."""
    serving: Serving = request.app.state.serving
    asked = await read_body(request, ChatRequest, serving.limits)
    serving.check_model(asked.model)
    answer = _Answer(serving, asked, *await asyncio.to_thread(_prepare, serving, asked))
    if asked.stream:
        return EventStream(answer.events(), answer.generation.close)
    return await unless_gone(request, answer.whole())


def _prepare(serving: Serving, asked: ChatRequest) -> tuple[list[int], Any]:
    """The prompt's tokens, and the matcher of what the answer must be, None for any text."""
    given = asked.tools if asked.tool_choice != "none" else None
    prompt = serving.prompts.of_messages(asked.messages, given)
    constraints, form = serving.constraints, asked.response_format
    if given and (asked.tool_choice == "required" or isinstance(asked.tool_choice, NamedTool)):
        calls = tools.format_of(serving.prompts.source or "")
        return prompt, tools.required(calls, given, asked.tool_choice, constraints)
    if isinstance(form, JsonObjectFormat):
        return prompt, constraints.json_object()
    if isinstance(form, JsonSchemaFormat):
        schema = form.json_schema.json_schema
        return prompt, constraints.json_schema(schema, "response_format.json_schema.schema")
    return prompt, None


class _Said:
    """One choice: what it says and calls, from its pieces."""

    def __init__(self, serving: Serving, asked: ChatRequest) -> None:
        self._vocabulary = serving.vocabulary
        self._calls: tools.ToolCalls | None = None
        if asked.tools and asked.tool_choice != "none":
            form = tools.format_of(serving.prompts.source or "")
            most = 1 if asked.parallel_tool_calls is False else math.inf
            self._calls = tools.ToolCalls(form, asked.tools, most)
        self.text = ""
        self.calls: list[ToolCall] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish: FinishReason = "stop"

    def feed(self, piece: Piece) -> tuple[str, list[ToolCall], list[TokenLogprob]]:
        """What is new."""
        text, calls = piece.text, list[ToolCall]()
        if self._calls:
            text, calls = self._calls.feed(piece.text, piece.finish is not None)
        logprobs = [self._vocabulary.chosen(token, known) for token, known in piece.known]
        if piece.finish:
            called = piece.finish == "stop" and (self.calls or calls)
            self.finish = "tool_calls" if called else piece.finish
        self.text += text
        self.calls += calls
        self.logprobs += logprobs
        return text, calls, logprobs


class _Answer:
    """The answer to one request, whole or as events."""

    def __init__(
        self, serving: Serving, asked: ChatRequest, prompt: list[int], matcher: Any
    ) -> None:
        self._serving, self._asked, self._prompt = serving, asked, prompt
        self._chunks = Chunks("chatcmpl", "chat.completion.chunk", serving.name, asked.wants_usage)
        wishes = [self._wish(choice, matcher) for choice in range(asked.n or 1)]
        self._said = [_Said(serving, asked) for _ in wishes]
        self.generation: Generation = serving.generate(wishes)

    def _wish(self, choice: int, matcher: Any) -> Wish:
        asked = self._asked
        settings = self._serving.settings(asked, asked.most, choice)
        if matcher is not None:
            settings["constraint"] = self._serving.constraints.start(matcher)
        if asked.logprobs:
            settings["logprobs"] = asked.top_logprobs or 0
        return Wish(self._prompt, settings, asked.stops)

    async def whole(self) -> Response:
        """The answer in one."""
        try:
            async for piece in self.generation:
                self._said[piece.choice].feed(piece)
        finally:
            self.generation.close()
        choices = [self._choice(number, said) for number, said in enumerate(self._said)]
        answer = ChatCompletion(
            **self._chunks.identity, choices=choices,
            usage=self.generation.usage(len(self._prompt)),
        )  # fmt: skip
        return JSONResponse(to_dict(answer))

    def _choice(self, number: int, said: _Said) -> ChatChoice:
        message = ChatMessage(
            content=None if said.calls and not said.text else said.text,
            tool_calls=said.calls or None,
        )
        logprobs = ChatLogprobs(content=said.logprobs) if self._asked.logprobs else None
        return ChatChoice(
            index=number, message=message, logprobs=logprobs, finish_reason=said.finish
        )

    async def events(self) -> AsyncIterator[bytes]:
        """The answer piece by piece: a first one with the role, a last one with the reason."""
        for number in range(len(self._said)):
            yield self._event(number, {"role": "assistant", "content": ""})
        async for piece in self.generation:
            said = self._said[piece.choice]
            before = len(said.calls)
            text, calls, logprobs = said.feed(piece)
            if text or logprobs:
                yield self._event(piece.choice, {"content": text}, logprobs)
            for index, call in enumerate(calls, before):
                delta = {"tool_calls": [{"index": index, **call.model_dump()}]}
                yield self._event(piece.choice, delta)
            if piece.finish:
                yield self._event(piece.choice, {}, finish=said.finish)
        if self._asked.wants_usage:
            yield self._chunks.of_usage(self.generation.usage(len(self._prompt)))

    def _event(
        self, choice: int, delta: dict[str, Any], logprobs: list[TokenLogprob] | None = None,
        finish: FinishReason | None = None,
    ) -> bytes:  # fmt: skip
        content = [each.model_dump() for each in logprobs or ()]
        found = {"content": content, "refusal": None} if content else None
        return self._chunks.of_choice(choice, {"delta": delta}, found, finish)
