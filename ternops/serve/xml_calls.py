"""Calls of tools in tags, as Qwen3-Coder and Qwen3.5 write them.

    <tool_call>
    <function=weather>
    <parameter=city>
    Ulm
    </parameter>
    </function>
    </tool_call>

Values stand as they are between their tags: strings without quotes, all else as JSON. Which of both
a value is, the function's schema says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from ternops.serve.answers import ToolCall
from ternops.serve.constraint import Constraints
from ternops.serve.errors import ApiError, shown
from ternops.serve.requests import FunctionTool
from ternops.serve.tool_formats import find, make_call

_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>\s*")
_FUNCTION_END = "</function>"
# A value may hold the tag that ends it; it ends where another tag follows.
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)</parameter>\s*(?=<parameter=|\Z)", re.DOTALL)
_PARAMETER_END = "\n</parameter>\n"
_NAME = re.compile(r"[^>\n]+")
# Templates print earlier arguments by Python's names.
_WORDS = {"True": True, "False": False, "None": None}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "null": (type(None),), "array": (list,), "object": (dict,),
}  # fmt: skip
#: References from one definition to the next.
_MOST_REFERENCES = 16

Schema = dict[str, Any]


class XmlCalls:
    """See `tool_formats.CallFormat`."""

    begin, end = "<tool_call>", "</tool_call>"

    def parse(self, text: str, functions: Sequence[FunctionTool]) -> ToolCall | None:
        """See `CallFormat`."""
        text = text.rstrip()
        head = _FUNCTION.match(text)
        function = find(functions, head[1]) if head else None
        if head is None or function is None or not text.endswith(_FUNCTION_END):
            return None
        body, at = text[head.end() : -len(_FUNCTION_END)], 0
        schemas = _Schemas(function)
        arguments = {}
        while at < len(body):
            match = _PARAMETER.match(body, at)
            if match is None:
                return None
            value = match[2].removeprefix("\n").removesuffix("\n")
            arguments[match[1]] = _read(value, schemas.types(match[1]))
            at = match.end()
        return make_call(function.name, arguments)

    def required(self, functions: Sequence[FunctionTool], constraints: Constraints) -> Any:
        """See `CallFormat`: parameters in the order of the schema, each once, and those that need
        not be there or not; strings are any text."""
        rules, calls = [f"text[suffix={json.dumps(_PARAMETER_END)}]: /(.|\\n)*/"], []
        for number, function in enumerate(functions):
            schemas, parts = _Schemas(function), []
            for at, name in enumerate(schemas.parameters):
                if not _NAME.fullmatch(name):
                    words = f"tools: parameter {shown(name)}, expected a name without > and lines"
                    raise ApiError(400, words, "tools")
                tag, value = json.dumps(f"<parameter={name}>\n"), schemas.grammar(name, constraints)
                rules.append(f"value{number}_{at}: {tag} {value}")
                parts.append(f"value{number}_{at}" + "?" * (name not in schemas.required))
            tag, end = json.dumps(f"<function={function.name}>\n"), json.dumps(_FUNCTION_END)
            rules.append(f"call{number}: {' '.join([tag, *parts, end])}")
            calls.append(f"call{number}")
        begin, end = json.dumps(self.begin + "\n"), json.dumps("\n" + self.end)
        start = f"start: {begin} ({' | '.join(calls)}) {end}"
        return constraints.of_grammar("\n".join([start, *rules]), "tools")


class _Schemas:
    """Those of a function's parameters. required: the names of those that must be there."""

    def __init__(self, function: FunctionTool) -> None:
        self._whole: Schema = function.parameters or {}
        properties, required = (self._whole.get(key) for key in ("properties", "required"))
        self.required: list[str] = required if isinstance(required, list) else []
        self.parameters: Schema = properties if isinstance(properties, dict) else {}

    def types(self, name: str) -> set[str]:
        """Those that a parameter's value may have; none where the schema says nothing of them."""
        return self._types(self.parameters.get(name))

    def grammar(self, name: str, constraints: Constraints) -> str:
        """Of a parameter's value and the tag behind it."""
        schema = self._found(self.parameters[name])
        values, end = _values(schema), json.dumps(_PARAMETER_END)
        if values and all(isinstance(each, str) for each in values):
            return f"({' | '.join(map(json.dumps, values))}) {end}"
        types = self._types(schema)
        if "string" in types or not types:
            return "text"
        shared: Schema = {
            key: self._whole[key] for key in ("$defs", "definitions") if key in self._whole
        }
        return f"{constraints.json_rule({**shared, **schema}, 'tools')} {end}"

    def _types(self, schema: Any) -> set[str]:
        schema = self._found(schema)
        given = schema.get("type")
        if isinstance(given, str):
            return {given}
        if isinstance(given, list):
            return {each for each in given if isinstance(each, str)}
        if values := _values(schema):
            return {name for each in values for name in _TYPES if type(each) in _TYPES[name]}
        branches = [schema.get(key) for key in ("anyOf", "oneOf")]
        each = [one for some in branches if isinstance(some, list) for one in some]
        return set().union(*map(self._types, each))

    def _found(self, schema: Any) -> Schema:
        """What a schema refers to, or itself."""
        for _ in range(_MOST_REFERENCES):
            if not isinstance(schema, dict):
                return {}
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema
            schema = self._whole
            for part in reference.removeprefix("#/").split("/"):
                schema = schema.get(part) if isinstance(schema, dict) else None
        return {}


def _values(schema: Schema) -> list[Any]:
    """The only ones that there may be, if the schema names them."""
    found = [schema["const"]] if "const" in schema else schema.get("enum")
    return found if isinstance(found, list) else []


def _read(text: str, types: set[str]) -> Any:
    """A value of one of the types; the text itself where it is of none."""
    if types == {"string"}:
        return text
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        if text not in _WORDS:
            return text
        found = _WORDS[text]
    wanted = types or {"array", "object"}
    return found if any(type(found) in _TYPES.get(each, ()) for each in wanted) else text


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
