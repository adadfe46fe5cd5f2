"""What is wrong with a request, in the shape that clients of OpenAI's API read."""

from __future__ import annotations

import json
import logging
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

logger = logging.getLogger("ternops.serve")

INVALID, SERVER = "invalid_request_error", "server_error"
#: Characters of a value that an error repeats.
_SHOWN = 40


class ApiError(Exception):
    """An answer that is an error: its status, one sentence, and which parameter it is about."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    @property
    def content(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = INVALID if self.status < 500 else SERVER
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        return JSONResponse(self.content, self.status, self.headers)


class Ends(ApiError):
    """The server ends and waits no longer for this request."""

    def __init__(self) -> None:
        super().__init__(503, "the server ends before the answer does", code="server_ends")


def of_validation(error: ValidationError, data: Any) -> ApiError:
    """A 400 that names the field, its value and what was expected; of several errors, those of the
    deepest field, which is the best guess at what a union was meant to be."""
    places = [(_place(each["loc"], data), each) for each in error.errors(include_url=False)]
    path, found = max(places, key=lambda place: len(place[0]))
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
    kind, value = found["type"], found["input"]
    if kind == "extra_forbidden":
        words = "no such parameter here"
    elif kind == "missing":
        name = ".".join(filter(None, (name, str(found["loc"][-1]))))
        words = "missing, expected a value"
    elif kind == "value_error":  # it names the field itself
        name, words = "", found["msg"].removeprefix("Value error, ")
    else:
        # A union expects what any of its branches does.
        endings = ("_type", "_short", "_long")
        alike = [
            _expected(each)
            for place, each in places
            if place == path and each["type"].endswith(endings)
        ]
        expected = " or ".join(dict.fromkeys(alike or [_expected(found)]))
        expected = expected.replace("Input should ", "to ")
        words = f"{shown(value)}, expected {expected}"
    return ApiError(400, f"{name}: {words}" if name else words, name or None)


def _expected(error: Any) -> str:
    """What one of pydantic's errors says should be."""
    limits = error.get("ctx", {})
    if error["type"] == "too_short":
        return f"{limits['min_length']} item(s) at least"
    if error["type"] == "too_long":
        return f"{limits['max_length']} item(s) at most"
    found: str = error["msg"].removeprefix("Input should be ")
    return found


def _place(location: tuple[int | str, ...], data: Any) -> list[int | str]:
    """The part of a location that is of the data, and not of a branch of a union."""
    path: list[int | str] = []
    for part in location:
        is_index = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if is_index or (isinstance(data, dict) and part in data):
            data = data[part]
            path.append(part)
    return path


def shown(value: Any) -> str:
    """A value as JSON has it, cut off where it is long."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    words = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers) if error.headers else None
    return ApiError(error.status_code, words, headers=headers).response()


async def on_bug(request: Request, error: Exception) -> Response:
    """Whatever nobody has thought of: the log has it, the client does not."""
    return ApiError(500, "an error of the server, which its log has", code="internal").response()
