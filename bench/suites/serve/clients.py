"""Clients that read streams, all in one event loop, and note when each event came."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

_PATH = "/v1/completions"
_SECONDS = 600


@dataclass
class Answer:
    """What one client saw. times: of the request, then of each event with text.

    status: of HTTP; failure: what went wrong, if something did. whole: whether it read to the end.
    """

    body: dict[str, Any]
    status: int = 0
    failure: str = ""
    text: str = ""
    whole: bool = False
    times: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Seconds to the first text."""
        return self.times[1] - self.times[0]

    @property
    def gaps(self) -> list[float]:
        """Seconds between texts."""
        return np.diff(self.times[1:]).tolist()


async def read(client: httpx.AsyncClient, body: dict[str, Any], leave: int | None = None) -> Answer:
    """A completion's stream. leave: go without a word after so many texts."""
    answer = Answer(body, times=[time.perf_counter()])
    try:
        async with client.stream("POST", _PATH, json={**body, "stream": True}) as response:
            answer.status = response.status_code
            if answer.status != httpx.codes.OK:
                answer.failure = (await response.aread()).decode(errors="replace")
                return answer
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    answer.whole |= line == "data: [DONE]"
                    continue
                event = json.loads(line[len("data: ") :])
                if "error" in event:
                    answer.failure = event["error"]["message"]
                    return answer
                # Other servers send an event for a token without a text as well.
                if any(each["text"] or not each["finish_reason"] for each in event["choices"]):
                    answer.times.append(time.perf_counter())
                    answer.text += event["choices"][0]["text"]
                if leave is not None and len(answer.times) > leave:
                    return answer
    except httpx.HTTPError as error:
        answer.failure = f"{type(error).__name__}: {error}"
    return answer


def together(url: str, bodies: Sequence[dict[str, Any]]) -> list[Answer]:
    """One client for each body, all at once."""

    async def run() -> list[Answer]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=_SECONDS, limits=limits) as client:
            return await asyncio.gather(*(read(client, each) for each in bodies))

    return asyncio.run(run())


def crowd(
    url: str, bodies: Sequence[dict[str, Any]], clients: int, seconds: float, seed: int
) -> list[Answer]:
    """So many clients that ask one thing after another for that long, a third of which vanish
    mid-stream; one that is refused comes again when it was told to."""
    found: list[Answer] = []

    async def one(client: httpx.AsyncClient, number: int, end: float) -> None:
        random = np.random.default_rng((seed, number))
        while time.perf_counter() < end:
            body = bodies[int(random.integers(len(bodies)))]
            leave = int(random.integers(1, body["max_tokens"])) if number % 3 == 0 else None
            answer = await read(client, body, leave)
            found.append(answer)
            if answer.status == httpx.codes.TOO_MANY_REQUESTS:
                await asyncio.sleep(min(1.0, max(0.0, end - time.perf_counter())))

    async def run() -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, timeout=_SECONDS, limits=limits) as client:
            end = time.perf_counter() + seconds
            await asyncio.gather(*(one(client, number, end) for number in range(clients)))

    asyncio.run(run())
    return found
