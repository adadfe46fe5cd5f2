"""How models write calls of tools: in a form that their chat templates show them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ternops.serve.answers import FunctionCall, ToolCall
from ternops.serve.constraint import Constraints
from ternops.serve.requests import FunctionTool


class CallFormat(Protocol):
    """What a call looks like. begin, end: the marks around it, "" where it is the whole text."""

    @property
    def begin(self) -> str: ...

    @property
    def end(self) -> str: ...

    def parse(self, text: str, functions: Sequence[FunctionTool]) -> ToolCall | None:
        """What stands between the marks, as a call; None if it is none of these functions."""

    def required(self, functions: Sequence[FunctionTool], constraints: Constraints) -> Any:
        """The matcher of a text that calls one of the functions; ApiError 400 where none can."""


@dataclass(frozen=True)
class JsonCalls:
    """A call is one object of JSON between two marks, with the arguments under a key.

    begin: "" where the text of a call begins with the object itself.
    """

    begin: str
    end: str
    arguments: str

    def parse(self, text: str, functions: Sequence[FunctionTool]) -> ToolCall | None:
        """See `CallFormat`."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or find(functions, found.get("name")) is None:
            return None
        arguments = found.get(self.arguments)
        return make_call(found["name"], arguments) if isinstance(arguments, dict) else None

    def required(self, functions: Sequence[FunctionTool], constraints: Constraints) -> Any:
        """See `CallFormat`."""
        before, behind = (self.begin + "\n", "\n" + self.end) if self.begin else ("", "")
        schema = {"anyOf": [self._schema(each) for each in functions]}
        return constraints.json_schema(schema, "tools", before, behind)

    def _schema(self, function: FunctionTool) -> dict[str, Any]:
        arguments = function.parameters or {"type": "object"}
        return {
            "type": "object",
            "properties": {"name": {"const": function.name}, self.arguments: arguments},
            "required": ["name", self.arguments],
            "additionalProperties": False,
        }


def find(functions: Sequence[FunctionTool], name: Any) -> FunctionTool | None:
    """The function of a name, None if there is none."""
    return next((each for each in functions if each.name == name), None)


def make_call(name: str, arguments: dict[str, Any]) -> ToolCall:
    """A call with an id of its own."""
    call = FunctionCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False))
    return ToolCall(id=f"call_{secrets.token_hex(12)}", function=call)
