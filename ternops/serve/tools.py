"""Calls of tools: how a model's template has it write them, and how its text is read.

The template decides: it shows the model its own form, by words that stand in its source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from ternops.decoder.stops import overlap
from ternops.serve.answers import ToolCall
from ternops.serve.constraint import Constraints
from ternops.serve.requests import NamedTool, Tool
from ternops.serve.tool_formats import CallFormat, JsonCalls
from ternops.serve.xml_calls import XmlCalls

#: Of Qwen, Hermes and others; of Llama 3; of Qwen3-Coder and Qwen3.5.
HERMES = JsonCalls("<tool_call>", "</tool_call>", "arguments")
LLAMA = JsonCalls("", "", "parameters")
QWEN_XML = XmlCalls()


def format_of(template: str) -> CallFormat:
    """By a template's source; Hermes's is the commonest."""
    if "<function=" in template and "<parameter=" in template:
        return QWEN_XML
    is_llama = "<tool_call>" not in template and '"parameters"' in template
    return LLAMA if is_llama else HERMES


def required(form: CallFormat, tools: Sequence[Tool], choice: Any, constraints: Constraints) -> Any:
    """What a text that calls one of the tools, or the one that is chosen, must be."""
    functions = [tool.function for tool in tools]
    if isinstance(choice, NamedTool):
        functions = [each for each in functions if each.name == choice.function.name]
    return form.required(functions, constraints)


class ToolCalls:
    """Takes the calls out of a text as it comes. most: of them, behind which nothing counts."""

    def __init__(self, form: CallFormat, tools: Sequence[Tool], most: float = math.inf) -> None:
        self._form, self._left = form, most
        self._functions = [tool.function for tool in tools]
        self._held = ""
        self._has_begun = self._is_behind = False

    def feed(self, text: str, is_last: bool) -> tuple[str, list[ToolCall]]:
        """The text that is none of a call, and the calls that are whole. What may yet become a
        call is held back until it is one, or cannot become one."""
        self._held += text
        if self._form.begin:
            return self._between_marks(is_last)
        is_call = self._held.lstrip().startswith("{") and not self._has_begun
        if (is_call or not self._held.strip()) and not is_last:
            return "", []
        self._has_begun = True
        held, self._held = self._held, ""
        call = self._form.parse(held, self._functions) if is_call else None
        return ("", [call]) if call else (held, [])

    def _between_marks(self, is_last: bool) -> tuple[str, list[ToolCall]]:
        begin, end = self._form.begin, self._form.end
        shown, calls = "", []
        pattern = f"{re.escape(begin)}(.*?){re.escape(end)}"
        self._skip_blanks()
        while self._left and (match := re.search(pattern, self._held, re.DOTALL)):
            call = self._form.parse(match[1], self._functions)
            # What looks like a call and is none is for the user to see.
            shown += self._held[: match.start() if call else match.end()]
            self._held = self._held[match.end() :]
            if call:
                calls.append(call)
                self._left -= 1
                self._is_behind = True
                self._skip_blanks()
        if not self._left:
            self._held = ""
            return shown, calls
        at = len(self._held) if is_last else _hold_from(self._held, begin)
        shown, self._held = shown + self._held[:at], self._held[at:]
        return shown, calls

    def _skip_blanks(self) -> None:
        """Those behind a call are no text."""
        if self._is_behind:
            self._held = self._held.lstrip()
            self._is_behind = not self._held


def _hold_from(text: str, mark: str) -> int:
    """Where a mark begins in a text, or may begin at its end."""
    found = text.find(mark)
    return found if found >= 0 else len(text) - overlap(text, mark)
