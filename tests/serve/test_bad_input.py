"""Whatever is wrong with a request is a 4xx in OpenAI's shape, with one sentence."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from ternops.serve import requests
from ternops.serve.limits import Limits
from tests.helpers.serving import make_serving, running

CHAT, COMPLETE, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
ONCE = {"prompt": "def ", "max_tokens": 1}


def check(response, status, words, param=None):
    """One sentence, in the shape of an error."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 400
    assert param in (None, error["param"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body: no JSON"),
        (b"{", "body: no JSON"),
        (b"[1, 2]", "expected an object"),
        (b'"text"', "expected an object"),
        (b'{"prompt": "\xff"}', "body: no JSON"),
        (b'{"prompt": "\\ud800"}', "body: no JSON"),
        (b'{"prompt": "x", "prompt_": 1}', "prompt_: no such parameter here"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature: NaN"),
        (b'{"prompt": "x", "temperature": Infinity}', "temperature: Infinity"),
        (b'{"prompt": "x", "temperature": 1e999}', "temperature"),
        (b'{"prompt": "x", "max_tokens": 99999999999999999999999}', "max_tokens"),
        (b"[" * 100_000, "body: no JSON"),
    ],
)
def test_bodies(server, body, words):
    headers = {"Content-Type": "application/json"}
    response = server.client.post(COMPLETE, content=body, headers=headers)
    check(response, 400, words)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"temperature": -1}, "temperature"), ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"top_k": -1}, "top_k"),
        ({"min_p": 2}, "min_p"), ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"), ({"n": 0}, "n"), ({"n": 1000}, "n"),
        ({"frequency_penalty": -3}, "frequency_penalty"), ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"), ({"max_tokens": True}, "max_tokens"),
        ({"seed": -1}, "seed"), ({"seed": 2**63}, "seed"), ({"stop": [""]}, "stop[0]"),
        ({"stop": ["x"] * 100}, "stop"), ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"many": 1}}, None), ({"logit_bias": {"1024": 1}}, None),
        ({"logprobs": 21}, "logprobs"), ({"stream": "yes"}, "stream"), ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"), ({"prompt": [[]]}, "prompt[0]"), ({"prompt": None}, "prompt"),
        ({"prompt": [1, "x"]}, None), ({"prompt": [1024]}, "prompt"), ({"prompt": [-1]}, None),
        ({"prompt": [1] * 513}, "prompt"), ({"prompt": "word " * 1000}, "prompt"),
        ({"stream_options": {"include_usage": True}}, None), ({"suffix": "x"}, None),
        ({"best_of": 3}, None), ({"user": 5}, "user"),
    ],
    ids=str,
)  # fmt: skip
def test_settings(server, changes, param):
    response = server.post(COMPLETE, **{**ONCE, **changes})
    check(response, 400, next(iter(changes)), param)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": []}, "messages: [], expected 1 item(s) at least"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "content: null"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"messages": [{"role": "user", "content": "refuse"}]}, "chat template: no, thanks"),
        ({"messages": [{"role": "user", "content": "fail"}]}, "chat template: "),
        ({"messages": [{"role": "user", "content": "word " * 1000}]}, "the context of 512"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"top_logprobs": 3}, "top_logprobs: only with logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice: only with tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}],
          "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice: 'g'"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
    ],
    ids=str,
)  # fmt: skip
def test_chats(talking, changes, words):
    check(talking.post(CHAT, **{**HELLO, **changes}), 400, words)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "minLength": 5, "maxLength": 2}, "Unsatisfiable"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "unsatisfiable"),
        ({"type": "nothing"}, "Invalid type"),
        ({"enum": []}, "Unsatisfiable"),
        ({"not": {}}, "not"),
        ({"type": "string", "pattern": "("}, "regex"),
        ({"$ref": "file:///etc/passwd"}, "does not fetch"),
        ({"$ref": "http://127.0.0.1:1/x"}, "does not fetch"),
    ],
    ids=str,
)
def test_schemas_that_cannot_be_met(talking, schema, words):
    """Nothing is fetched for them, either."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    check(talking.post(CHAT, **HELLO, response_format=form), 400, words)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (COMPLETE, {**ONCE, "model": "gpt-5"}, 404, "'gpt-5' is not served here"),
        (CHAT, {**HELLO, "model": "../../etc/passwd"}, 404, "is not served here"),
        (EMBED, {"input": ""}, 200, ""),
        (EMBED, {"input": [""] * 3000}, 400, "input"),
        (EMBED, {"input": []}, 400, "input"),
        (EMBED, {"input": ["x", 5]}, 400, "input"),
        (EMBED, {"input": "word " * 1000}, 400, "input[0]"),
        (EMBED, {"input": [[5], [2000]]}, 400, "2000"),
        (EMBED, {"input": "x", "dimensions": 3}, 400, "dimensions=3"),
        (EMBED, {"input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
        ("/tokenize", {}, 400, "prompt: missing"),
        ("/detokenize", {"tokens": [99999]}, 400, "99999 is no token"),
        ("/detokenize", {"tokens": "x"}, 400, "tokens"),
    ],
    ids=str,
)
def test_other_routes(server, path, body, status, words):
    response = server.post(path, **body)
    if status == 200:
        assert response.status_code == 200
    else:
        check(response, status, words)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (requests.CompletionRequest, {"prompt": [None] * 5000}),
        (requests.CompletionRequest, {"prompt": [[None]] * 5000}),
        (requests.ChatRequest, {"messages": [None] * 5000}),
        (requests.ChatRequest, {"messages": [{"role": "user", "content": [None] * 5000}]}),
        (requests.ChatRequest, {"messages": [{"role": "user", "content": "x",
                                              "tool_calls": [None] * 5000}]}),
        (requests.EmbeddingRequest, {"input": [None] * 5000}),
        (requests.DetokenizeRequest, {"tokens": [None] * 5000}),
    ],
    ids=["prompt", "prompts", "messages", "content", "tool_calls", "input", "tokens"],
)  # fmt: skip
def test_of_a_list_the_first_error_counts(kind, body):
    """Millions of them would take the server seconds and gigabytes."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(json.dumps(body))
    assert caught.value.error_count() < 10


def test_a_body_of_errors(server):
    wrong = {f"x{number}": 1 for number in range(5000)}
    check(server.post(COMPLETE, **ONCE, **wrong), 400, "body: 5000 errors")


def test_paths(server):
    """None leads to a file, whatever is in it."""
    for path in (
        "/nothing", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/models/../../etc/passwd",
        "/page.html", "//etc/passwd", "/v1/models/%2fetc%2fpasswd", "/static/page.html",
    ):  # fmt: skip
        response = server.client.get(path)
        assert response.status_code == 404, path
        assert "root:" not in response.text
        check(response, 404, "")
    check(server.client.get(COMPLETE), 405, "GET /v1/completions: Method Not Allowed")


def test_what_is_not_sent_as_json(server):
    """A page of another origin cannot ask in a browser's name without asking the server first."""
    response = server.client.post(COMPLETE, content=json.dumps(ONCE))
    check(response, 415, "expected application/json")


def test_a_body_beyond_the_limit():
    """Whether its length is told or not; and below it what is too long for the model is a 400."""
    with running(make_serving(limits=Limits(max_body=1 << 20))) as server:
        long = {"prompt": "x" * (10 << 20)}
        check(server.post(COMPLETE, **long), 413, "more than 1048576 bytes")
        headers = {"Content-Type": "application/json"}
        parts = iter([json.dumps(long).encode()])
        response = server.client.post(COMPLETE, content=parts, headers=headers)
        check(response, 413, "more than 1048576 bytes")
        check(server.post(COMPLETE, prompt="x" * 900_000), 400, "the context of 512")
        assert server.ask(COMPLETE, **ONCE)["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(
    "changes",
    [{"parallel": 0}, {"queue": -1}, {"max_body": 0}, {"timeout": 0}, {"grace": float("nan")}],
    ids=str,
)
def test_limits(changes):
    with pytest.raises(ValueError, match=f"^{next(iter(changes))}=.*expected"):
        Limits(**changes)
