"""``python -m ternops serve`` as people run it: a process, its words, its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.helpers import processes
from tests.helpers.serving import PATIENCE, events, talker, wait_until

COMPLETE = "/v1/completions"


@contextlib.contextmanager
def process(*arguments, **changes):
    """A server in a process of its own, and where it answers."""
    command = [sys.executable, "-m", "ternops", "serve", "--port", "0", "--threads", "1"]
    running = subprocess.Popen(
        [*command, *arguments], stderr=subprocess.PIPE, text=True,
        env=processes.environment(**changes), cwd=processes.ROOT,
    )  # fmt: skip
    try:
        lines = []
        for line in running.stderr:
            lines.append(line)
            if match := re.search(r"http://\S+:\d+", line):
                yield running, match[0], "".join(lines)
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        running.kill()
        running.communicate()


def answers(url):
    """Whether a server still takes requests."""
    try:
        return httpx.get(f"{url}/health", timeout=PATIENCE).is_success
    except httpx.TransportError:
        return False


def test_it_answers_and_ends_in_good_order(tmp_path):
    """What is under way when it is told to stop comes to its end; nothing else is begun."""
    folder = talker(tmp_path / "talker")
    arguments = ("--model", str(folder), "--parallel", "2", "--queue", "0")
    with process(*arguments, TERNOPS_API_KEY="secret") as (running, url, words):
        assert "talker" in words
        headers = {"Authorization": "Bearer secret"}
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
            assert client.get("/v1/models").json()["data"][0]["id"] == "talker"
            body = {"prompt": "def ", "max_tokens": 400, "stream": True, "n": 2,
                    "logit_bias": {"1": -100}}  # fmt: skip
            with client.stream("POST", COMPLETE, json=body) as response:
                lines = response.iter_lines()
                next(lines)
                running.send_signal(signal.SIGTERM)
                events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            reasons = [each["choices"][0]["finish_reason"] for each in events]
            assert reasons.count("length") == 2
        assert running.wait(PATIENCE) in (0, -signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_one_that_is_killed(tmp_path):
    """Amid a stream: its client is told at once, and another server has the port at once."""
    folder = talker(tmp_path / "talker")
    body = {"prompt": "def ", "max_tokens": 400, "stream": True}
    with process("--model", str(folder)) as (running, url, _), httpx.Client(base_url=url) as client:
        with client.stream("POST", COMPLETE, json=body) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: {")
            running.kill()
            with pytest.raises(httpx.TransportError):
                assert "data: [DONE]" not in list(lines)
        running.wait()
        port = url.rpartition(":")[2]
        with process("--model", str(folder), "--port", port) as (_, again, _):
            assert again == url
            body = {"prompt": "def ", "max_tokens": 3}
            assert client.post(COMPLETE, json=body, timeout=PATIENCE).status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=str)
def test_it_does_not_wait_for_ever(signals):
    """When the grace is over, or at the second Ctrl-C, what is under way is told so: a stream by an
    event, another request by a 503. There is no traceback."""
    grace = "0.1" if signals == [signal.SIGTERM] else "60"
    body = {"prompt": "def ", "max_tokens": 500, "logit_bias": {"1": -100}, "n": 16}
    with process("--grace", grace) as (running, url, _), ThreadPoolExecutor(1) as pool:
        with httpx.stream(
            "POST", f"{url}{COMPLETE}", json={**body, "stream": True}, timeout=PATIENCE
        ) as response:
            lines = response.iter_lines()
            next(lines)
            waits = pool.submit(httpx.post, f"{url}{COMPLETE}", json=body, timeout=PATIENCE)
            wait_until(lambda: "sequences 32.0" in httpx.get(f"{url}/metrics").text)
            for each in signals:
                running.send_signal(each)
                wait_until(lambda: not answers(url))  # or two of them would be one
            *_, last = events(lines)
        assert last["error"]["code"] == "server_ends"
        assert waits.result().status_code == 503
        assert waits.result().json() == last
        _, words = running.communicate(timeout=PATIENCE)
        assert running.returncode in (130, -signal.SIGTERM)
        assert "Traceback" not in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port 70000: expected 0 to 65535"),
        (["--api-key", " "], "--api-key: empty"),
        (["--name", ""], "--name: empty"),
        (["--cors", "https://example.org/"], "--cors https://example.org/: expected an origin"),
        (["--cors", "*", "example.org"], "--cors example.org: expected an origin"),
        (["--kv-memory", "much"], "--kv-memory='much': expected a size"),
        (["--parallel", "0"], "parallel=0: expected"),
        (["--timeout", "nan"], "timeout=nan: expected"),
        (["--max-body", "much"], "--max-body='much': expected a size"),
        (["--model", "nowhere"], "nowhere"),
        (["--host", "203.0.113.1"], "--host 203.0.113.1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(arguments, words):
    done = processes.python("-m", "ternops", "serve", *arguments)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ternops: error: ")
    assert words in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "package", ["starlette", "uvicorn", "pydantic", "prometheus_client", "llguidance"]
)
def test_without_its_packages(tmp_path, package):
    """The line says how to install them."""
    (tmp_path / f"{package}.py").write_text(
        f"raise ModuleNotFoundError('no {package}', name={package!r})"
    )
    path = os.pathsep.join((str(tmp_path), str(processes.ROOT)))
    done = processes.python("-m", "ternops", "serve", PYTHONPATH=path)
    assert done.returncode == 2
    words = f"ternops: error: {package} is not installed: pip install 'ternops[serve]'\n"
    assert done.stderr == words
