"""Bodies of requests, streams of events, and clients that go."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from ternops.serve.errors import ApiError, Ends, of_validation
from ternops.serve.limits import Limits
from ternops.serve.requests import Asked

Body = TypeVar("Body", bound=Asked)

#: Seconds without an event after which a stream says that it is still there.
PING = 15.0
_PING = b": still at it\n\n"
_DONE = b"data: [DONE]\n\n"
#: Of a body, of which one is told. To look through a million of them takes seconds and gigabytes.
_MOST_ERRORS = 1000


async def read_body(request: Request, kind: type[Body], limits: Limits) -> Body:
    """The body, JSON within the limits; ApiError 4xx for what is none, or not of `kind`."""
    most = limits.max_body
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, f"Content-Type: {media_type!r}, expected application/json")
    too_long = ApiError(413, f"body: more than {most} bytes, the limit of this server")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_long
    data = bytearray()
    try:
        async with asyncio.timeout(limits.timeout):
            async for part in request.stream():
                data += part
                if len(data) > most:
                    raise too_long
    except TimeoutError:
        words = f"body: not there after {limits.timeout:g} s, the limit of a request"
        raise ApiError(408, words) from None
    except ClientDisconnect:  # nobody reads what is answered
        raise ApiError(499, "body: the client went before its end") from None
    try:
        return kind.model_validate_json(bytes(data))
    except ValidationError as error:
        if (count := error.error_count()) > _MOST_ERRORS:
            raise ApiError(400, f"body: {count} errors, expected none") from None
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, f"body: no JSON: {first['ctx']['error']}") from None
        raise of_validation(error, json.loads(data)) from None


class EventStream(StreamingResponse):
    """Server-sent events; `close` is called when they end, or the client has gone. Where nothing
    comes for PING seconds, as while a long prompt is read, a comment does, so that no proxy takes
    the connection for dead.

    Of Starlette and not of sse-starlette: that ends all streams half a second after SIGTERM, and a
    server that is told to stop is to finish what it has begun.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        # Proxies hold nothing back.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_guarded(events), headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent, has_begun = time.monotonic(), False

        async def noted(message: Message) -> None:
            nonlocal sent, has_begun
            sent, has_begun = time.monotonic(), True
            await send(message)

        async def ping() -> None:
            while True:
                await asyncio.sleep(sent + PING - time.monotonic())
                if time.monotonic() - sent >= PING:
                    await noted({"type": "http.response.body", "body": _PING, "more_body": True})

        pings = asyncio.ensure_future(ping())
        try:
            await super().__call__(scope, receive, noted)
        except asyncio.CancelledError:
            if not has_begun:
                raise
            await send({"type": "http.response.body", "body": event(Ends().content) + _DONE})
        finally:
            pings.cancel()
            self._close()


def event(content: Mapping[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: %b\n\n" % to_json(content)


async def _guarded(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events, and the end that clients wait for; an error is an event by now."""
    try:
        async for each in events:
            yield each
    except ApiError as error:
        yield event(error.content)
    yield _DONE


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """What `work` gives; it is cancelled when the client goes, to whom nothing matters then."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=499)
    finally:
        watch.cancel()
        task.cancel()
