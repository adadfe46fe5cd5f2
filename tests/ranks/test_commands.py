"""Commands that `mpirun` starts: the same answers, one line for what is wrong, an end to all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from ternops.decoder.formats.safetensors_file import map_file
from tests.helpers.processes import ROOT, environment
from tests.helpers.rank_cases import MPIEXEC, mpiexec

pytestmark = pytest.mark.mpi
TEXT = str(ROOT / "tests" / "helpers" / "code.txt")
LAYOUTS = [(2, "tp=2"), (2, None), (3, "pp=3"), (4, "tp=2,pp=2")]


def ternops(ranks, *arguments, **options):
    return mpiexec(ranks, ["-m", "ternops", *arguments], **options)


def with_layout(layout):
    return [] if layout is None else ["--layout", layout]


@pytest.mark.parametrize(("ranks", "layout"), LAYOUTS)
def test_generate(ranks, layout):
    """Greedy, drawn and guessed tokens, with threads that share the CPUs."""
    for more in ([], ["--temperature", "0.8", "--seed", "5"], ["--prompt-lookup", "4"]):
        command = ["generate", "--prompt", "one two three", "--max-new-tokens", "20", "--json"]
        alone, together = (
            ternops(count, *command, *more, *chosen)
            for count, chosen in ((1, []), (ranks, with_layout(layout)))
        )
        assert together.returncode == 0, together.stderr
        first, second = (json.loads(each.stdout)["tokens"] for each in (alone, together))
        assert first == second


@pytest.mark.parametrize(("ranks", "layout"), LAYOUTS)
def test_perplexity(ranks, layout):
    """All its digits."""
    command = "perplexity", "--text", TEXT, "--context", "100", "--head", "screened"
    alone = ternops(1, *command)
    together = ternops(ranks, *command, *with_layout(layout))
    assert together.returncode == 0, together.stderr
    assert together.stdout.splitlines()[0] == alone.stdout.splitlines()[0]
    assert together.stdout.startswith("perplexity ")


@pytest.mark.parametrize("cache", ["fp16", "int3"])
def test_a_chat_goes_on_with_another_number_of_processes(tmp_path, cache):
    """What was saved is the same, byte for byte, and the next answer the same text."""
    chats = [(1, []), (2, ["--layout", "tp=2"]), (3, ["--layout", "tp=3"]),
             (4, ["--layout", "tp=2,pp=2"])]  # fmt: skip
    command = ["chat", "--cache", cache, "--max-new-tokens", "30"]
    files = [Path(tmp_path, f"{ranks}.session") for ranks, _ in chats]
    for (ranks, more), file in zip(chats, files, strict=True):
        done = ternops(ranks, *command, *more, stdin=f"hello there\n/save {file}\n")
        assert done.returncode == 0, done.stderr
    # safetensors writes metadata in any order.
    headers, tensors = zip(*map(map_file, files), strict=True)
    assert all(each == headers[0] for each in headers)
    for name, first in tensors[0].items():
        assert all(each[name].bytes.tobytes() == first.bytes.tobytes() for each in tensors)
    answers = set()
    for ranks, more in chats:
        done = ternops(ranks, *command, *more, stdin=f"/load {files[-1]}\nand then\n")
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    assert len(answers) == 1
    assert answers != {""}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "/nowhere/at/all"], "'/nowhere/at/all'"),
        (["--layout", "pp=3"], "layout 'pp=3': expected tp=N,pp=N with 2 ranks in all"),
        (["--max-new-tokens", "-1"], "max_new_tokens"),
    ],
)
def test_one_line_from_one_process(arguments, words):
    """And all end, with the exit code of one process alone."""
    done = ternops(2, "generate", "--prompt", "a", *arguments)
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 2
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("ternops: error: ")
    assert words in errors[0]


def test_more_processes_than_there_is_work_for():
    """Of layers, in a pipeline."""
    done = ternops(5, "generate", "--prompt", "a", "--layout", "pp=5")
    assert done.returncode == 2
    assert "layout: pp=5, expected 1 to the model's 4 layers" in done.stderr


def test_a_model_that_is_not_there_on_one_host(tmp_path):
    """Here the second process sees another folder by the same name."""
    model = Path(tmp_path, "model")
    model.symlink_to(ROOT / "ternops" / "checkpoints" / "tiny")
    command = [sys.executable, "-m", "ternops", "generate", "--prompt", "a", "--model", "model"]
    done = subprocess.run(
        [MPIEXEC, "-wdir", str(tmp_path), "-n", "1", *command,
         ":", "-wdir", "/", "-n", "1", *command],
        capture_output=True, text=True, timeout=60, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "ternops: error: rank 1 on " in done.stderr
    assert "model" in done.stderr


def start_server(ranks, *arguments):
    """A server that is ready, and its port."""
    process = subprocess.Popen(
        [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "ternops", "serve", "--port", "0",
         *arguments],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    for line in process.stderr:
        if "OpenAI's API" in line:
            return process, int(line.split("/")[2].split(":")[1])
    raise AssertionError(f"no server: {process.wait()}")


def ask(port):
    body = json.dumps({"prompt": "one two three", "max_tokens": 12, "temperature": 0}).encode()
    address = f"http://127.0.0.1:{port}/v1/completions"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["text"]


def member(launcher, rank):
    """The process of a rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            above = int(Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if f"PMI_RANK={rank}".encode() in variables and b"serve" in words and above == launcher:
            return int(folder.name)
    raise AssertionError(f"no rank {rank}")


def end(process):
    """What it said, and how long it went on."""
    start = time.monotonic()
    try:
        said = process.communicate(timeout=30)
    finally:
        process.kill()
    return "".join(said), time.monotonic() - start


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds processes in /proc")
@pytest.mark.parametrize("layout", ["tp=2", "pp=2"])
def test_a_server_answers_and_ctrl_c_ends_it(layout):
    """The answers of one process."""
    answers = []
    for ranks in (1, 2):
        chosen = with_layout(layout) if ranks > 1 else []
        process, port = start_server(ranks, *chosen)
        answers.append(ask(port))
        os.kill(member(process.pid, 0), signal.SIGINT)
        _, seconds = end(process)
        assert seconds < 10
    assert answers[0] == answers[1]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds processes in /proc")
@pytest.mark.parametrize(("rank", "sign"), [(1, signal.SIGKILL), (0, signal.SIGKILL),
                                            (1, signal.SIGSTOP), (0, signal.SIGSTOP)])  # fmt: skip
def test_one_that_dies_or_hangs_ends_all(rank, sign):
    """Within ten seconds, with its rank or its process and the reason."""
    process, port = start_server(2)
    ask(port)
    number = member(process.pid, rank)
    os.kill(number, sign)
    said, seconds = end(process)
    assert process.returncode != 0
    assert seconds < 10
    if sign == signal.SIGSTOP:
        assert f"ternops: error: rank {rank} on " in said
        assert "has given no sign of life for 8 s" in said
    else:
        # As MPI itself says it.
        assert f"PID {number} RUNNING AT " in said
        assert "Killed (signal 9)" in said
