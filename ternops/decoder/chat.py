"""From the messages of a chat to one text, by the Jinja template of a model.

Templates come with a model and run in Jinja's sandbox. They find what transformers gives them:
messages, add_generation_prompt, the special tokens by name, raise_exception, strftime_now, tojson,
loop controls and ``{% generation %}``, which marks what the model said and prints it.
"""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jinja2 import Template

#: "role": "system", "user" or "assistant", and "content": the text; what else templates know, such
#: as "tool_calls".
Message = dict[str, Any]


class ChatTemplate:
    """A template and the special tokens ("bos_token", "eos_token", ...) that it may name.

    Raises ModuleNotFoundError without the jinja2 package, ValueError for an invalid template.
    """

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        self._special_tokens = special_tokens
        self._template = _compile(source)

    def render(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        """The text of the messages and the beginning of the model's answer to them.

        tools: what the model may call, as OpenAI's API describes functions.
        Raises ValueError if the template refuses the messages, or fails.
        """
        try:
            return self._template.render(
                **self._special_tokens, messages=messages, add_generation_prompt=True,
                tools=tools, documents=None,
            )  # fmt: skip
        except Exception as error:  # templates are programs, which may fail in any way
            raise ValueError(f"chat template: {_one_line(error)}") from None


def _compile(source: str) -> Template:
    try:
        import jinja2
        from jinja2 import nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError:
        raise ModuleNotFoundError("jinja2 is not installed: pip install 'ternops[llm]'") from None

    class Generation(Extension):
        """``{% generation %}...{% endgeneration %}``: what is inside."""

        tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ValueError(f"chat template: {_one_line(error)}") from None


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: Any = None, sort_keys: bool = False) -> str:  # fmt: skip
    """Jinja's own would escape characters for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _one_line(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    text = " ".join(str(error).split())
    return f"line {line}: {text}" if line else text
