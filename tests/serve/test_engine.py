"""The engine under stress: clients that go, too many of them, failures, an end in good order."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from ternops.decoder import Batch
from ternops.decoder.sampler import Sampler
from ternops.serve import engine, http
from ternops.serve.limits import Limits
from tests.helpers.serving import events, make_serving, running, wait_until

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
LONG = {"prompt": "def ", "max_tokens": 500, "temperature": 1.0, "logit_bias": {"1": -100}}


def value(server, name):
    """A number that Prometheus is told."""
    for line in server.client.get("/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise LookupError(name)


@pytest.fixture
def slow(monkeypatch):
    """Steps take at least 5 ms, so that something is always under way."""
    step = Batch.step

    def slowly(batch):
        time.sleep(0.005)
        return step(batch)

    monkeypatch.setattr(Batch, "step", slowly)


def test_a_client_that_goes(slow):
    """Whether it was reading a stream or waiting for the whole: nothing goes on for nobody."""
    with running(make_serving()) as server:
        before = value(server, "ternops_generated_tokens_total")
        with server.client.stream("POST", COMPLETE, json={**LONG, "stream": True}) as response:
            next(response.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            server.client.post(COMPLETE, json={**LONG, "n": 3}, timeout=0.2)
        server.wait_until_idle()
        assert value(server, "ternops_cancelled_total") == 4
        assert value(server, "ternops_generated_tokens_total") - before < 400


def test_a_client_that_goes_amid_its_body(caplog):
    """Is no error of the server."""
    with running(make_serving()) as server:
        address = server.client.base_url.host, server.client.base_url.port
        with socket.create_connection(address) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
                b"Content-Type: application/json\r\n\r\n{"
            )
        wait_until(lambda: 'route="/v1/completions"' in server.client.get("/metrics").text)
        name = 'ternops_requests_total{route="/v1/completions",status="499"} 1.0'
        assert name in server.client.get("/metrics").text
    assert "Traceback" not in caplog.text


def test_too_many(slow):
    """Are told when to come again; those who wait are not disturbed."""
    limits = Limits(parallel=2, queue=2)
    with running(make_serving(limits=limits)) as server, httpx.Client(base_url=server.url) as other:
        with server.client.stream("POST", COMPLETE, json={**LONG, "n": 3, "stream": True}) as first:
            lines = first.iter_lines()
            next(lines)
            refused = other.post(COMPLETE, json={**LONG, "n": 2})
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert refused.json()["error"]["code"] == "busy"
            assert other.post(COMPLETE, json={**LONG, "max_tokens": 1}).status_code == 200
            found = events(lines)
        assert sorted(each["choices"][0]["index"] for each in found
                      if each["choices"][0]["finish_reason"]) == [0, 1, 2]  # fmt: skip
        # What was refused was not read.
        length = len(server.serving.prompts.of_text(LONG["prompt"]))
        assert value(server, "ternops_prompt_tokens_total") == 4 * length
        never = server.post(COMPLETE, **{**LONG, "n": 5})
        assert never.status_code == 400
        assert "5 sequences, expected at most 4" in never.json()["error"]["message"]


def test_an_engine_that_fails(slow, monkeypatch, caplog):
    """Is a 503 for all that is under way, streams included, and starts again."""
    with running(make_serving()) as server:
        good = Batch.step
        answers = []

        def ask(body):
            with httpx.Client(base_url=server.url, timeout=60) as client:
                answers.append(client.post(COMPLETE, json=body))

        threads = [
            threading.Thread(target=ask, args=({**LONG, "stream": streams},))
            for streams in (False, True, False)
        ]
        for each in threads:
            each.start()
        wait_until(lambda: value(server, "ternops_generated_tokens_total") > 20)

        def fails(batch):
            raise MemoryError("nothing is left")

        monkeypatch.setattr(Batch, "step", fails)
        for each in threads:
            each.join()
        monkeypatch.setattr(Batch, "step", good)
        codes = sorted(each.status_code for each in answers)
        assert codes == [200, 503, 503]
        for each in answers:
            if each.status_code == 503:
                assert each.json()["error"]["code"] == "engine_died"
                assert each.json()["error"]["type"] == "server_error"
            else:
                assert '"engine_died"' in each.text
                assert each.text.endswith("data: [DONE]\n\n")
        assert value(server, "ternops_engine_restarts_total") == 1
        assert "nothing is left" in caplog.text
        assert server.client.get("/health").json() == {"status": "ok"}
        short = {**LONG, "max_tokens": 3}
        assert server.ask(COMPLETE, **short)["usage"]["completion_tokens"] == 3
        server.wait_until_idle()


def test_a_sequence_that_cannot_go_on(slow, monkeypatch):
    """Is an error for its request alone, whole or streamed; the engine goes on with the others."""
    original, seen = Sampler.__call__, []

    def broken(sampler, logits):
        if sampler.exact_top == 3 and sampler not in seen:
            seen.append(sampler)
            if len(seen) % 2:  # of two choices the first
                logits = np.full_like(logits, np.nan)
        return original(sampler, logits)

    monkeypatch.setattr(Sampler, "__call__", broken)
    bad = {**LONG, "top_k": 3, "logit_bias": {}, "n": 2}
    with running(make_serving()) as server:
        with (
            httpx.Client(base_url=server.url) as other,
            other.stream("POST", COMPLETE, json={
                **LONG, "max_tokens": 60, "stream": True, "stream_options": {"include_usage": True}
            }) as good,
        ):  # fmt: skip
            lines = good.iter_lines()
            next(lines)
            response = server.post(COMPLETE, **bad)
            assert response.status_code == 400
            error = response.json()["error"]
            assert error["message"] == "logits: the largest is nan, expected a finite number"
            assert error["code"] == "no_token"
            with server.client.stream("POST", COMPLETE, json={**bad, "stream": True}) as response:
                assert events(response.iter_lines())[-1] == {"error": error}
            assert events(lines)[-1]["usage"]["completion_tokens"] == 60
        server.wait_until_idle()
        assert value(server, "ternops_engine_restarts_total") == 0
        # The other choices have not gone on for nobody.
        assert value(server, "ternops_generated_tokens_total") < 60 + 2 * 100


def test_what_was_said_comes_before_an_error(monkeypatch):
    """All of it, though tokens wait for one another."""
    original, calls = Sampler.__call__, Counter()

    def fifth_is_broken(sampler, logits):
        calls[sampler] += 1
        return original(sampler, np.full_like(logits, np.nan) if calls[sampler] == 5 else logits)

    monkeypatch.setattr(Sampler, "__call__", fifth_is_broken)
    monkeypatch.setattr(engine, "_TOGETHER", 60.0)
    with running(make_serving()) as server:
        body = {**LONG, "seed": 1}
        whole = server.ask(COMPLETE, **{**body, "max_tokens": 4})["choices"][0]["text"]
        *found, last = server.stream(COMPLETE, **body)
        assert "".join(each["choices"][0]["text"] for each in found) == whole
        assert "nan" in last["error"]["message"]


def test_a_stream_that_waits_says_so(monkeypatch):
    """By comments, which clients skip, for as long as nothing else comes, and then no more."""
    go = threading.Event()
    step = Batch.step

    def waits(batch):
        go.wait(60)
        return step(batch)

    monkeypatch.setattr(http, "PING", 0.02)
    monkeypatch.setattr(Batch, "step", waits)
    with (
        running(make_serving()) as server,
        server.client.stream(
            "POST", COMPLETE, json={**LONG, "max_tokens": 3, "stream": True}
        ) as response,
    ):
        lines = response.iter_lines()
        for _ in range(3):
            assert next(lines) == ": still at it"
            assert next(lines) == ""
        go.set()
        found = [line for line in lines if line and not line.startswith(":")]
    assert len(found) >= 2
    assert found[-1] == "data: [DONE]"


def test_a_request_that_takes_too_long(slow):
    with running(make_serving(limits=Limits(timeout=0.3))) as server:
        response = server.post(COMPLETE, **LONG)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "timeout"
        server.wait_until_idle()
        wait_until(lambda: value(server, "ternops_cancelled_total") == 1)


def test_no_token_is_no_first_token(monkeypatch):
    """To Prometheus, of a request that is given up before any came."""
    with running(make_serving(limits=Limits(timeout=0.1))) as server:
        monkeypatch.setattr(Batch, "step", lambda batch: time.sleep(0.005) or [])
        assert server.post(COMPLETE, **LONG).status_code == 503
        wait_until(lambda: value(server, "ternops_cancelled_total") == 1)
        assert value(server, "ternops_time_to_first_token_seconds_count") == 0


def test_a_step_that_does_not_end(monkeypatch):
    """Hangs nobody: requests end, and /health says so."""
    go = threading.Event()
    with running(make_serving(limits=Limits(timeout=0.3))) as server:
        monkeypatch.setattr(Batch, "step", lambda batch: go.wait(60) or [])
        assert server.post(COMPLETE, **LONG).status_code == 503
        wait_until(lambda: server.client.get("/health").status_code == 503)
        monkeypatch.undo()
        go.set()
        wait_until(lambda: server.client.get("/health").status_code == 200)
        assert server.ask(COMPLETE, prompt="x", max_tokens=1)


def test_a_limit_of_keys_and_values():
    """What can never be decoded is refused, all else waits its turn."""
    with running(make_serving(limits=Limits(kv_memory="400kB"))) as server:
        refused = server.post(COMPLETE, **LONG)
        assert refused.status_code == 400
        assert "kv_memory" in refused.json()["error"]["message"]
        # As many tokens as there is room for, where nobody says how many: 6 pages of 64.
        body = {"prompt": [5] * 100, "max_tokens": None, "logit_bias": {"1": -100}}
        answer = server.ask(COMPLETE, **body)
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["total_tokens"] == 6 * 64 + 1
        body = {"prompt": "def ", "max_tokens": 40, "n": 6, "temperature": 0}
        found = [each["text"] for each in server.ask(COMPLETE, **body)["choices"]]
        assert len(set(found)) == 1
        assert value(server, "ternops_kv_bytes") == 0
        assert value(server, "ternops_kv_kept_bytes") > 0


def test_a_key():
    with running(make_serving(), key="secret") as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            response = server.client.get("/v1/models", headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
        assert server.client.get("/metrics").status_code == 401
        assert server.client.get("/").status_code == server.client.get("/health").status_code == 200
        headers = {"Authorization": "Bearer secret"}
        assert server.client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["schlüssel", " a b \n", "\udcff\udcfe"], ids=ascii)
def test_a_key_of_any_characters(key):
    """Is one of the bytes that a client sends, which sends no blanks at its ends."""
    with running(make_serving(), key=key) as server:
        given = b"Bearer " + key.strip().encode(errors="surrogateescape")
        for value, status in ((given, 200), (given + b"x", 401)):
            found = server.client.get("/v1/models", headers={b"Authorization": value})
            assert found.status_code == status


def test_names_and_origins():
    """A page of another origin may ask if it was named; another name of the machine is none."""
    page = "https://example.org"
    with running(make_serving(), origins=[page], hosts=("127.0.0.1",)) as server:
        found = server.client.get("/health", headers={"Origin": page})
        assert found.headers["access-control-allow-origin"] == page
        found = server.client.get("/health", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in found.headers
        asks = {
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        }
        assert server.client.options(COMPLETE, headers=asks).status_code == 200
        found = server.client.get("/health", headers={"Host": "evil.example"})
        assert found.status_code == 403


def test_the_end_waits_for_what_is_under_way(slow):
    """And only for that."""
    found = []
    with running(make_serving()) as server:

        def ask():
            with httpx.Client(base_url=server.url, timeout=60) as client:
                body = {**LONG, "max_tokens": 50, "stream": True}
                with client.stream("POST", COMPLETE, json=body) as response:
                    found.extend(events(response.iter_lines()))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: value(server, "ternops_generated_tokens_total") > 3)
    thread.join()
    assert found[-1]["choices"][0]["finish_reason"] == "length"


def test_what_prometheus_is_told(server):
    server.ask(COMPLETE, prompt="def ", max_tokens=4, temperature=0)
    assert value(server, "ternops_generated_tokens_total") >= 4
    assert value(server, "ternops_time_to_first_token_seconds_count") >= 1
    text = server.client.get("/metrics").text
    assert 'ternops_requests_total{route="/v1/completions",status="200"}' in text
    server.client.get("/some/path/or/other")
    assert "some/path" not in server.client.get("/metrics").text


@pytest.mark.parametrize("seconds", [0, 1e9])
def test_tokens_that_come_together(slow, monkeypatch, seconds):
    """Are one event; the first one waits for nothing, and neither does the last one."""
    monkeypatch.setattr(engine, "_TOGETHER", seconds)
    body = {"prompt": "def ", "max_tokens": 20, "temperature": 0, "logprobs": 2}
    with running(make_serving()) as server:
        whole = server.ask(COMPLETE, **body)["choices"][0]
        with server.client.stream("POST", COMPLETE, json={**body, "stream": True}) as response:
            parts = [each["choices"][0] for each in events(response.iter_lines())]
    counts = [len(each["logprobs"]["tokens"]) for each in parts]
    assert sum(counts) == 20
    assert seconds == 0 or len(counts) <= 2
    assert "".join(each["text"] for each in parts) == whole["text"]
    for name in ("tokens", "text_offset", "top_logprobs"):
        joined = [one for each in parts for one in each["logprobs"][name]]
        assert joined == whole["logprobs"][name]


@pytest.mark.parametrize(("step", "tokens"), [(0.007, 3), (0.012, 2), (0.015, 1), (0.03, 1)])
def test_no_token_waits_for_one_that_comes_too_late(monkeypatch, step, tokens):
    """By a clock that only steps move: events are as far apart as is allowed, or as a step."""
    now = 100.0
    original = Batch.step

    def timed(batch):
        nonlocal now
        now += step
        return original(batch)

    monkeypatch.setattr(Batch, "step", timed)
    monkeypatch.setattr(engine, "_TOGETHER", 0.025)
    clock = SimpleNamespace(monotonic=lambda: now, sleep=time.sleep)
    monkeypatch.setattr(engine, "time", clock)
    told = list[int]()

    def counted(found):
        told.append(sum(len(some) for _, some in found))
        for tokens_of, some in found:
            tokens_of.put(some)

    monkeypatch.setattr(engine, "_put_all", counted)
    with running(make_serving()) as server:
        server.ask(COMPLETE, prompt="def ", max_tokens=14, temperature=0)
    assert sum(told) == 14
    assert told[0] == 1
    assert set(told[1:-1]) == {tokens}


def test_a_text_that_stops_among_tokens_that_come_together(monkeypatch):
    """What came behind its end is not said, and not counted."""
    body = {"prompt": "def ", "max_tokens": 40, "temperature": 0}
    with running(make_serving()) as server:
        whole = server.ask(COMPLETE, **body)["choices"][0]["text"]
        monkeypatch.setattr(engine, "_TOGETHER", 1e9)
        stopped = server.ask(COMPLETE, **body, stop=whole[5:8])
        server.wait_until_idle()
    assert stopped["choices"][0]["text"] == whole[: whole.index(whole[5:8])]
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["usage"]["completion_tokens"] < 40
