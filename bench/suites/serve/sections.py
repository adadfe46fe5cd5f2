"""What bench.serve measures, section by section, and the figures from it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.core.errors import first_line
from bench.core.goals import Goal
from bench.core.process import Conversation, WorkerError
from bench.suites.serve import clients, models, servers
from bench.suites.serve.clients import Answer

_PROMPT = "import os\n\ndef main("
_CLIENTS = (1, 2, 4, 8)
#: Characters of a prefix that requests share: a token each with a random model's tokenizer.
_PREFIX, _TAIL = 512, 8
_CROWD, _ROUNDS_OF_CROWD, _TEXTS = 64, 3, 12
#: Of llama.cpp's server and ours beside it.
_LINEAR, _HEAD, _BESIDE = "tq2_0", "q8_0", 4
_CASES = 2000
#: Times of an answer that has a first text, and of one that has another one behind it.
_FIRST, _FEWEST = 2, 3


@dataclass
class ServeOptions:
    """How much to measure: tokens of an answer, rounds of each figure, seconds of the crowd.

    raw: what was seen, for the results and the picture.
    """

    size: str
    threads: int
    tokens: int
    rounds: int
    seconds: float
    raw: dict[str, Any] = field(default_factory=dict)

    def body(self, prompt: str = _PROMPT, tokens: int | None = None, **more: Any) -> dict[str, Any]:
        """A greedy completion."""
        return {"prompt": prompt, "max_tokens": tokens or self.tokens, "temperature": 0.0, **more}


def _folder(options: ServeOptions, stack: ExitStack) -> Path:
    parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return models.folder(options.size, parent)


def _alone(path: Path, options: ServeOptions, stack: ExitStack) -> Conversation:
    found = Conversation("bench.suites.serve.alone", str(path), str(options.threads))
    stack.callback(found.close)
    return found


def _checked(answers: list[Answer], fewest: int = _FEWEST) -> list[Answer]:
    """The answers; WorkerError for one that is none, or has fewer times."""
    for each in answers:
        if each.failure or not each.whole:
            raise WorkerError(first_line(ValueError(each.failure or "a stream that ends early")))
        if len(each.times) < fewest:
            raise WorkerError(f"{len(each.times) - 1} texts in a stream, expected more")
    return answers


def _rate(answers: list[Answer], tokens: int) -> float:
    """Tokens a second of all, from the last first text to the first end: all were under way."""
    begin, end = max(each.times[1] for each in answers), min(each.times[-1] for each in answers)
    # Texts may be of several tokens; all answers have as many tokens.
    count = sum(
        tokens * sum(begin < at <= end for at in each.times[1:]) / (len(each.times) - 1)
        for each in answers
    )
    return count / (end - begin)


def overhead(options: ServeOptions) -> Iterator[Goal]:
    """a token by HTTP and SSE beside one of Model.generate"""
    with ExitStack() as stack:
        path = _folder(options, stack)
        alone = _alone(path, options, stack)
        server = stack.enter_context(servers.ours(path, options.threads, max(_CLIENTS)))
        body = options.body()
        pairs = []
        for number in range(options.rounds + 1):
            plain, text = alone.ask(["generate", body])
            (answer,) = _checked(clients.together(server.url, [body]))
            if answer.text != text:
                raise WorkerError("the text over HTTP differs from that of Model.generate")
            span = answer.times[-1] - answer.times[1]
            if number:  # the first round compiles and warms up
                pairs.append((plain, span / (options.tokens - 1)))
    more = [served / plain - 1 for plain, served in pairs]
    plain, served = (median(each) for each in zip(*pairs, strict=True))
    options.raw["overhead"] = pairs
    yield Goal(
        "overhead", f"{options.size}, one client, a token over HTTP, beyond generate", 0.03,
        median(more), " %",
        f"{1e6 * plain:.0f} and {1e6 * served:.0f} us; from {100 * min(more):.1f} to "
        f"{100 * max(more):.1f} % in {len(more)} rounds; the text is the same",
    )  # fmt: skip


def throughput(options: ServeOptions) -> Iterator[Goal]:
    """tokens/s of several clients beside those of a Batch"""
    rows: dict[int, list[tuple[float, float]]] = {each: [] for each in _CLIENTS}
    gaps: dict[int, list[float]] = {each: [] for each in _CLIENTS}
    with ExitStack() as stack:
        path = _folder(options, stack)
        alone = _alone(path, options, stack)
        server = stack.enter_context(servers.ours(path, options.threads, max(_CLIENTS)))
        for number in range(options.rounds + 1):
            for count in _CLIENTS:
                bodies = [options.body(f"{_PROMPT}{each}") for each in range(count)]
                batch = alone.ask(["batch", bodies])
                answers = _checked(clients.together(server.url, bodies))
                if number:
                    rows[count].append((batch, _rate(answers, options.tokens)))
                    gaps[count] += [gap for each in answers for gap in each.gaps]
    options.raw["throughput"] = {str(count): found for count, found in rows.items()}
    options.raw["gaps"] = {
        str(count): np.percentile(found, (50, 95, 99)).tolist() for count, found in gaps.items()
    }
    one = median(served for _, served in rows[1])
    for count in _CLIENTS[1:]:
        batch, served = (median(each) for each in zip(*rows[count], strict=True))
        share = median(served / batch for batch, served in rows[count])
        yield Goal(
            "throughput", f"{options.size}, {count} clients, tokens/s, share of a Batch's", 0.95,
            share, "%",
            f"{served:.1f} and {batch:.1f} tokens/s, {served / one:.2f}x one client's; gap p50 "
            f"{1e3 * np.percentile(gaps[count], 50):.2f} ms, p95 "
            f"{1e3 * np.percentile(gaps[count], 95):.2f} ms",
        )  # fmt: skip


def prefix(options: ServeOptions) -> Iterator[Goal]:
    """time to the first token of a prompt whose beginning has been read before"""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     \n"))
    first: list[float] = []
    second: list[float] = []
    # The tiny model's context holds no more; its tokens are of several letters.
    length = _PREFIX if options.size != models.TINY else 400
    with ExitStack() as stack:
        path = _folder(options, stack)
        server = stack.enter_context(servers.ours(path, options.threads, max(_CLIENTS)))
        for number in range(options.rounds + 1):
            shared = "".join(random.choice(letters, length))
            for seen in (first, second):
                tail = "".join(random.choice(letters, _TAIL))
                asked = options.body(shared + tail, 8)
                (answer,) = _checked(clients.together(server.url, [asked]), _FIRST)
                if number:
                    seen.append(answer.first)
    options.raw["prefix"] = list(zip(first, second, strict=True))
    share = median(after / before for before, after in zip(first, second, strict=True))
    yield Goal(
        "prefix", f"{options.size}, first token behind a shared prefix of {length}", 0.1, share,
        " %", f"{1e3 * median(first):.1f} and {1e3 * median(second):.1f} ms",
    )  # fmt: skip


def crowd(options: ServeOptions) -> Iterator[Goal]:
    """64 clients, a third of which vanish mid-stream"""
    bodies = [
        options.body(f"{_PROMPT}{each}", 8 + 4 * each)
        | ({"temperature": 1.0, "seed": each} if each % 2 else {})
        for each in range(_TEXTS)
    ]
    found: list[Answer] = []
    memory = []
    with ExitStack() as stack:
        path = _folder(options, stack)
        alone = _alone(path, options, stack)
        texts = [alone.ask(["generate", body])[1] for body in bodies]
        alone.close()
        server = stack.enter_context(
            servers.ours(path, options.threads, 16, "--queue", str(_CROWD // 2))
        )
        for number in range(_ROUNDS_OF_CROWD):
            answers = clients.crowd(server.url, bodies, _CROWD, options.seconds, number)
            found += answers
            time.sleep(2)  # what was cancelled is let go of
            memory.append(server.memory)
    whole = [each for each in found if each.whole]
    refused = sum(each.status == 429 for each in found)
    wrong = [each for each in found if each.failure and each.status != 429]
    expected = dict(zip((body["prompt"] for body in bodies), texts, strict=True))
    differ = sum(each.text != expected[each.body["prompt"]] for each in whole)
    options.raw["crowd"] = {"memory": memory, "whole": len(whole), "refused": refused}
    words = f"{len(whole)} texts read to their end, {len(found)} requests, {refused} refused"
    where = f"{_CROWD} clients, {_ROUNDS_OF_CROWD} x {options.seconds:g} s"
    remark = words + (f"; {first_line(ValueError(wrong[0].failure))}" if wrong else "")
    yield Goal("crowd", f"{where}: errors but 429", 0, len(wrong), " requests", remark)
    yield Goal("crowd", f"{where}: other than alone", 0, differ, " texts", words)
    growth = max(memory[1:]) / memory[0] - 1
    yield Goal(
        "crowd", f"{where}: memory, growth from the first round", 0.02, growth, " %",
        ", ".join(f"{each / 1e6:.1f}" for each in memory) + " MB",
    )  # fmt: skip


def peers(options: ServeOptions) -> Iterator[Goal]:
    """four clients beside llama.cpp's server, on one GGUF file"""
    seen: dict[str, tuple[float, float]] = {}
    with ExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = models.gguf(options.size, parent, _LINEAR, _HEAD)
        reason = ""
        for name, serve in (("ternops", servers.ours), ("llama.cpp", servers.llama)):
            try:
                with serve(path, options.threads, _BESIDE) as server:
                    seen[name] = _four(server.url, options)
            except (ImportError, WorkerError) as error:
                reason = f"{name}: {first_line(error)}"
                break
    what = f"{options.size} {_LINEAR.upper()}, {_BESIDE} clients, over llama.cpp's server"
    if reason:
        yield Goal("peers", f"{what}: tokens/s", 1.0, np.nan, "x", reason)
        return
    options.raw["peers"] = seen
    (ours, gap), (theirs, other) = seen.values()
    words = f"{ours:.1f} and {theirs:.1f} tokens/s"
    yield Goal("peers", f"{what}: tokens/s", 1.0, ours / theirs, "x", words)
    words = f"{1e3 * gap:.1f} and {1e3 * other:.1f} ms"
    yield Goal("peers", f"{what}: p95 of gaps, theirs over ours", 1.0, other / gap, "x", words)


def _four(url: str, options: ServeOptions) -> tuple[float, float]:
    """Tokens a second over the whole of it, and the p95 of gaps, prompts and queues included."""
    rates, gaps = [], []
    for number in range(options.rounds + 1):
        # Drawn: a random GGUF file's rows repeat, and the first of equal ones is a byte.
        bodies = [
            options.body(f"{_PROMPT}{number}{each}") | {"temperature": 1.0, "seed": each}
            for each in range(_BESIDE)
        ]
        answers = _checked(clients.together(url, bodies))
        if number:
            span = max(each.times[-1] for each in answers) - answers[0].times[0]
            rates.append(_BESIDE * options.tokens / span)
            gaps += [gap for each in answers for gap in np.diff(each.times)]
    return median(rates), float(np.percentile(gaps, 95))


def cases(options: ServeOptions) -> Iterator[Goal]:
    """schemathesis on the OpenAPI document, the tiny model"""
    with (
        tempfile.TemporaryDirectory() as place,
        servers.ours(models.folder(models.TINY, Path(place)), options.threads, 8) as server,
    ):
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json",
            "--checks", "not_a_server_error", "--max-examples", str(_CASES // 4), "--no-color",
            "--phases", "coverage,fuzzing", "--generation-database", "none",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)
    generated = re.search(r"(\d+) generated", done.stdout)
    count = int(generated[1]) if generated else 0
    failed = re.search(r"(\d+) found", done.stdout)
    remark = f"{count} cases generated, exit code {done.returncode}"
    seen = float(failed[1]) if failed else np.nan if done.returncode else 0.0
    yield Goal("cases", f"schemathesis, {_CASES} cases or more: answers of 5xx", 0, seen,
               " answers", remark)  # fmt: skip


#: Each section by its name; PEERS needs another server.
SECTIONS = {
    "overhead": overhead, "throughput": throughput, "prefix": prefix, "crowd": crowd,
    "peers": peers, "cases": cases,
}  # fmt: skip
PEERS = ("peers",)
