"""Answers that must be of some form: JSON, a JSON schema, a call of a tool. By llguidance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from ternops.serve.errors import ApiError
from ternops.serve.vocabulary import Vocabulary

#: Between the parts of JSON: a model that could put blanks for ever would.
_BLANKS = r"[\x20\x0A\x0D\x09]{0,20}"
_OPTIONS = {"whitespace_pattern": _BLANKS}


class Constraint:
    """What may come next in one text, as `ternops.decoder.sampler.Constraint` wants it.

    error: what went wrong on the way, in words; only end tokens are allowed from there on.
    """

    def __init__(self, matcher: Any, words: int, ends: tuple[int, ...]) -> None:
        self._matcher = matcher
        self._mask = np.zeros(words, np.int32)
        self._ends = ends
        self.error = ""

    def allowed(self) -> npt.NDArray[np.int32]:
        """int32, token t at bit t % 32 of word t // 32; overwritten by the next call."""
        if not self.error and not self._matcher.is_stopped():
            self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
            self._note()
        if self.error or self._matcher.is_stopped() or not self._mask.any():
            bits = np.zeros(32 * len(self._mask), np.uint8)
            bits[list(self._ends)] = 1
            self._mask[:] = np.packbits(bits, bitorder="little").view(np.int32)
        return self._mask

    def accept(self, token: int) -> None:
        """This one has come."""
        if not self.error and token not in self._ends:
            self._matcher.consume_token(token)
            self._note()

    def _note(self) -> None:
        if self._matcher.is_error():
            self.error = _line(self._matcher.get_error())


class Constraints:
    """Makes constraints for the tokens of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def json_object(self) -> Any:
        """Any object."""
        return self.json_schema({"type": "object"}, "response_format")

    def json_schema(
        self, schema: dict[str, Any], param: str, before: str = "", behind: str = ""
    ) -> Any:
        """Whatever a schema describes, between two texts; ApiError 400, naming `param`, where
        nothing is."""
        marks = [json.dumps(each) if each else "" for each in (before, behind)]
        rule = self.json_rule(schema, param)
        return self.of_grammar(f"start: {marks[0]} json {marks[1]}\njson: {rule}", param)

    def json_rule(self, schema: dict[str, Any], param: str) -> str:
        """A schema as a part of a grammar; ApiError 400, naming `param`, for what is no JSON."""
        try:
            return f"%json {json.dumps({**schema, 'x-guidance': _OPTIONS}, allow_nan=False)}"
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"{param}: {error}", param) from None

    def of_grammar(self, grammar: str, param: str) -> Any:
        """What a grammar in llguidance's form of Lark's describes; ApiError 400, naming `param`,
        where nothing is."""
        if not self._vocabulary.ends:
            raise ApiError(400, f"{param}: the model has no end token, expected plain text", param)
        matcher = LLMatcher(
            self._vocabulary.for_grammars, LLMatcher.grammar_from_lark(grammar), log_level=0
        )
        if matcher.is_error():
            raise ApiError(400, f"{param}: {_line(matcher.get_error())}", param)
        return matcher

    def start(self, matcher: Any) -> Constraint:
        """A constraint for one more text of what was made by one of the others."""
        words = -(-self._vocabulary.for_grammars.vocab_size // 32)
        return Constraint(matcher.deep_copy(), words, self._vocabulary.ends)


def _line(text: str) -> str:
    """The first line that says something, without where in our grammar it is."""
    text = text.split("failed to compile JSON schema: ")[-1]
    return next((line.strip() for line in text.splitlines() if line.strip()), "no grammar")
