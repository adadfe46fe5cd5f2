"""What clients may ask, as pydantic models: the checks, and the schemas of the OpenAPI document.

Types are strict, unknown parameters are errors: nobody is left to believe that one has an effect.
Those of OpenAI's that change nothing here are accepted by name. Of a long list the first wrong item
is an error, not all of a million.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

#: Sequences of one request, stop strings, and characters of one.
MAX_CHOICES, MAX_STOPS, MAX_STOP = 16, 16, 1000
#: Likeliest tokens whose log-probabilities can be had.
MAX_LOGPROBS = 20
MAX_INTEGER = 2**31 - 1
#: Texts of a request for embeddings, and tokens of a bias.
MAX_TEXTS, MAX_BIASES = 2048, 1024

Token = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
TokenNumber = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,9})$")]


def _each(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """Of one text or several, or of their tokens: each by itself."""
    is_one = isinstance(given, str) or isinstance(given[0], int)
    return [given] if is_one else list(given)  # type: ignore[list-item,arg-type]


class Asked(BaseModel):
    """What all requests share."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(Asked):
    """include_usage: a last chunk with the numbers of tokens."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampled(Asked):
    """How tokens are chosen and when they end. None: the default of the model's files."""

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[TokenNumber, Bias], Field(max_length=MAX_BIASES)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # OpenAI's, without an effect here.
    user: str | None = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Sampled:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only with stream, expected stream to be true")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(Sampled):
    """/v1/completions: continue texts, or tokens."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)]
        | Annotated[list[Token], Field(min_length=1, fail_fast=True)]
        | Annotated[
            list[Annotated[list[Token], Field(min_length=1, fail_fast=True)]],
            Field(min_length=1, max_length=MAX_CHOICES),
        ]
    )
    max_tokens: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = 16
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each text, or the tokens of it."""
        return _each(self.prompt)


class TextPart(Asked):
    """A part of a message's content; images and sounds are none."""

    type: Literal["text"]
    text: str


class CalledFunction(Asked):
    """arguments: JSON, as the model wrote it."""

    name: Name
    arguments: str


class ToolCallMessage(Asked):
    """A call that the model made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class Message(Asked):
    """One message. What OpenAI's client repeats of an answer is accepted where it is nothing."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(min_length=1, fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCallMessage], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _has_content(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"content: null in a message of the {self.role}, expected a text")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("tool_call_id: missing in a message of a tool, expected an id")
        return self

    @property
    def text(self) -> str | None:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content


class FunctionTool(Asked):
    """parameters: a JSON schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Asked):
    """Something that the model may call."""

    type: Literal["function"]
    function: FunctionTool


class FunctionName(Asked):
    name: Name


class NamedTool(Asked):
    """The tool that the model must call."""

    type: Literal["function"]
    function: FunctionName


class TextFormat(Asked):
    type: Literal["text"]


class JsonObjectFormat(Asked):
    type: Literal["json_object"]


class NamedSchema(Asked):
    """A JSON schema; strict is the only way here."""

    name: Name
    description: str | None = None
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class JsonSchemaFormat(Asked):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class ChatRequest(Sampled):
    """/v1/chat/completions: the next message of a chat."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: (
        Annotated[
            TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
        ]
        | None
    ) = None  # fmt: skip
    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    # OpenAI's, without an effect here.
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: only with logprobs, expected logprobs to be true")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ValueError("tool_choice: only with tools, expected a list of tools")
        if isinstance(self.tool_choice, NamedTool):
            names = [tool.function.name for tool in self.tools or ()]
            if self.tool_choice.function.name not in names:
                raise ValueError(
                    f"tool_choice: {self.tool_choice.function.name!r}, expected one of the tools"
                )
        return self

    @property
    def most(self) -> int | None:
        """The most tokens of the answer; None: what the context holds."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens


class EmbeddingRequest(Asked):
    """/v1/embeddings: vectors of texts, or of tokens."""

    model: str | None = None
    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
        | Annotated[list[Token], Field(min_length=1, fail_fast=True)]
        | Annotated[
            list[Annotated[list[Token], Field(min_length=1, fail_fast=True)]],
            Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True),
        ]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    user: str | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """Each text, or the tokens of it."""
        return _each(self.input)


class TokenizeRequest(Asked):
    """/tokenize: the tokens of a text."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None


class DetokenizeRequest(Asked):
    """/detokenize: the text of tokens."""

    model: str | None = None
    tokens: Annotated[list[Token], Field(fail_fast=True)]
