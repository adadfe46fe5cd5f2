"""Bodies of requests: whatever is asked is answered, by no error of the server's own."""

from __future__ import annotations

import asyncio
import atexit
import json
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from ternops.serve.app import make_app
from ternops.serve.limits import Limits
from tests.fuzz.mutations import of_json
from tests.fuzz.target import Finding, Target
from tests.helpers.serving import make_serving, talker

#: Tokens that a request may ask for: a body is the test, not decoding.
_TOKENS = 4
_CHAT = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {
    "type": "object", "properties": {"x": {"type": "integer"}}}}}  # fmt: skip
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "enum": ["b"]}},
           "required": ["a"], "additionalProperties": False}  # fmt: skip
_SEEDS: tuple[tuple[str, Any], ...] = (
    ("/v1/completions", {"prompt": "def ", "max_tokens": 2, "temperature": 0, "seed": 1}),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1, "logprobs": 2, "echo": True}),
    ("/v1/completions", {"prompt": [1, 2], "max_tokens": 2, "stop": ["x"], "stream": True,
                         "stream_options": {"include_usage": True}, "logit_bias": {"3": -5.0}}),
    ("/v1/chat/completions", _CHAT),
    ("/v1/chat/completions", {**_CHAT, "n": 2, "logprobs": True, "top_logprobs": 3, "min_p": 0.1}),
    ("/v1/chat/completions", {**_CHAT, "tools": [_TOOL], "tool_choice": "required"}),
    ("/v1/chat/completions", {**_CHAT, "response_format": {
        "type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA, "strict": True}}}),
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64"}),
    ("/tokenize", {"prompt": "a b"}),
    ("/detokenize", {"tokens": [1, 2]}),
)  # fmt: skip


@cache
def _client() -> tuple[asyncio.Runner, httpx.AsyncClient]:
    folder = tempfile.TemporaryDirectory(prefix="ternops-fuzz-")
    app = make_app(make_serving(talker(Path(folder.name)), Limits(timeout=20.0)))
    runner = asyncio.Runner()
    context = app.router.lifespan_context(app)
    runner.run(context.__aenter__())
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def end() -> None:
        runner.run(context.__aexit__(None, None, None))
        folder.cleanup()

    atexit.register(end)
    return runner, client


def _seeds() -> Sequence[bytes]:
    return [json.dumps({"path": path, "body": body}).encode() for path, body in _SEEDS]


def _request(data: bytes) -> bool:
    try:
        asked = json.loads(data)
        path, body = asked["path"], asked["body"]
        content = json.dumps(body).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        path, body, content = "/v1/completions", None, data
    # What no client can ask for is no path; a second slash would be a host.
    if not isinstance(path, str) or not path.isprintable() or not re.match(r"/\w", path):
        path = "/v1/completions"
    if isinstance(body, dict) and _is_long(body, path):
        return False
    runner, client = _client()
    headers = {"Content-Type": "application/json"}
    answer = runner.run(client.post(path, content=content, headers=headers, timeout=60))
    if answer.status_code >= 500:
        raise Finding(f"{answer.status_code}: {answer.text}")
    if answer.status_code >= 400:
        error = answer.json()["error"]
        if set(error) != {"message", "type", "param", "code"} or "\n" in error["message"]:
            raise Finding(f"an error of another form: {answer.text}")
        return False
    return True


def _is_long(body: dict[str, Any], path: str) -> bool:
    """Whether it asks for many tokens, which are no test."""
    counts = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    given = [each for each in counts if isinstance(each, int)]
    return ("completions" in path and not given) or any(each > _TOKENS for each in given)


TARGETS = {"request": Target("request", _seeds, of_json, _request)}
