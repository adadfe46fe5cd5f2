"""A server on a free port of the loopback, in a thread of the test's process."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from ternops.decoder import Model, open_checkpoint
from ternops.decoder.formats.loading import TINY
from ternops.serve.app import make_app
from ternops.serve.limits import Limits
from ternops.serve.serving import Serving

#: Seconds after which a test gives up waiting for something.
PATIENCE = 300


#: Of chats: each message in a line, tools as Hermes has them, and two contents that go wrong.
TEMPLATE = """{{ bos_token }}
{%- if tools %}You may write <tool_call>{"name": ..., "arguments": ...}</tool_call>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for m in messages %}
{%- if m.content == "refuse" %}{{ raise_exception("no, thanks") }}{% endif %}
{%- if m.content == "fail" %}{{ nothing.of.it }}{% endif %}# {{ m.role }}: {{ m.content }}
{% for call in m.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>
{% endfor %}{% endfor %}# assistant: """


@dataclass
class Server:
    """A server that runs, and a client of it."""

    serving: Serving
    url: str
    client: httpx.Client

    def post(self, path: str, **body: Any) -> httpx.Response:
        """The answer to a body of JSON."""
        return self.client.post(path, json=body)

    def ask(self, path: str, **body: Any) -> Any:
        """What a good request is answered."""
        response = self.post(path, **body)
        assert response.status_code == 200, response.text
        return response.json()

    def stream(self, path: str, **body: Any) -> list[Any]:
        """The events of a good one."""
        with self.client.stream("POST", path, json={**body, "stream": True}) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            return events(response.iter_lines())

    def wait_until_idle(self) -> None:
        """Until no sequence is under way."""
        wait_until(lambda: b"ternops_sequences 0.0" in self.serving.metrics.text()[0])


def events(lines: Iterator[str]) -> list[Any]:
    """What server-sent events hold, to the end that they must have."""
    data = [line.removeprefix("data: ") for line in lines if line and line[0] != ":"]
    assert data[-1] == "[DONE]"
    return [json.loads(each) for each in data[:-1]]


def wait_until(condition: Any) -> None:
    """Until it holds; TimeoutError if it never does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(condition)
        time.sleep(0.01)


def talker(folder: Path) -> Path:
    """The tiny model with TEMPLATE, which it was never taught, in a folder."""
    shutil.copytree(TINY, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def make_serving(path: Any = None, limits: Limits | None = None, **settings: Any) -> Serving:
    """The tiny model, or another one, under the name "tiny"."""
    model = Model.from_pretrained(path, threads=1, **settings)
    return Serving(model, open_checkpoint(path), "tiny", limits or Limits())


@contextmanager
def running(serving: Serving, **settings: Any) -> Iterator[Server]:
    """Serve it; settings: of `make_app`."""
    app = make_app(serving, **settings)
    config = uvicorn.Config(app, port=0, lifespan="on", log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            yield Server(serving, url, client)
    finally:
        server.should_exit = True
        thread.join()
