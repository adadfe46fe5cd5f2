"""What a request must pass before a handler sees it: where it comes from, and its API key.

Plain ASGI, since Starlette's own base for such things puts a queue between a stream and its client.
"""

from __future__ import annotations

import hmac
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ternops.serve.errors import ApiError
from ternops.serve.metrics import Metrics

#: What may be seen without a key: that it works, and the page, which asks for the key.
_OPEN = ("/", "/health")


class Guard:
    """Lets through what has the key, if there is one, and a name of this machine in Host.

    hosts: these names, empty for any. A page of the web that has its own name stand for a loopback
    address (DNS rebinding) is then no way in.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: tuple[str, ...]) -> None:
        self._app, self._key, self._hosts = app, key, hosts

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
        same = hmac.compare_digest(given.strip().encode(), self._key.encode())
        if scheme.lower() == "bearer" and same:
            return None
        words = "Authorization: expected Bearer and the API key of this server"
        challenge = {"WWW-Authenticate": "Bearer"}
        return ApiError(401, words, code="invalid_api_key", headers=challenge)


def _name_of(host: str) -> str:
    """Without the port."""
    name, _, port = host.rpartition(":")
    return name.lower() if name and port.isdecimal() else host.lower()


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
