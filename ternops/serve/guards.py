"""What a request must pass before a handler sees it: where it comes from, and its API key.

Plain ASGI, since Starlette's own base for such things puts a queue between a stream and its client.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ternops.serve.errors import ApiError, Ends
from ternops.serve.metrics import Metrics

#: What may be seen without a key: that it works, and the page, which asks for the key.
_OPEN = ("/", "/health")


class Guard:
    """Lets through what has the key, if there is one, and a name of this machine in Host.

    hosts: these names, empty for any. A page of the web that has its own name stand for a loopback
    address (DNS rebinding) is then no way in.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: tuple[str, ...]) -> None:
        self._app, self._hosts = app, hosts
        # As bytes, which headers are; blanks at its ends no client can send.
        self._key = None if key is None else key.strip().encode(errors="surrogateescape")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (error := self._wrong(scope)) is None:
            await self._app(scope, receive, send)
        else:
            await error.response()(scope, receive, send)

    def _wrong(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = _name_of(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            return ApiError(403, f"Host: {host!r}, expected {' or '.join(self._hosts)}")
        if self._key is None or scope["path"] in _OPEN or scope["method"] == "OPTIONS":
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._key)
        if scheme.lower() == "bearer" and same:
            return None
        words = "Authorization: expected Bearer and the API key of this server"
        challenge = {"WWW-Authenticate": "Bearer"}
        return ApiError(401, words, code="invalid_api_key", headers=challenge)


def _name_of(host: str) -> str:
    """Without the port."""
    name, _, port = host.rpartition(":")
    return name.lower() if name and port.isdecimal() else host.lower()


class Ending:
    """Answers requests that are cancelled because the server ends, their grace being over or Ctrl-C
    having come twice; uvicorn would answer as no client of this API expects, and log a traceback
    for each. What waits for the end of the server is cancelled then, too: that is the end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def received() -> Message:
            try:
                return await receive()
            except asyncio.CancelledError:
                if scope["type"] != "lifespan":
                    raise
                return {"type": "lifespan.shutdown"}

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun |= message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, received, noted)
        except asyncio.CancelledError:
            if scope["type"] != "http" or has_begun:  # a stream has an end of its own
                raise
            await Ends().response()(scope, receive, send)


class Counting:
    """Counts requests and their seconds, by the paths that there are."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.monotonic(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            path: Any = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, status or 500).inc()
            self._metrics.durations.observe(time.monotonic() - began)
