"""llama.cpp in a process of its own: what dies is started once more without extra buffers."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from bench.core.process import WorkerError
from bench.engines import llama_cpp, llama_process
from bench.engines.llama_process import LlamaProcess
from bench.models.random_gguf import random_gguf
from ternops.decoder import Config

TINY = Config(
    hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=320, context=1024
)
WORDS = "killed by signal 11 (SIGSEGV)"


class Fake:
    """A conversation that dies of some requests, with extra buffers or without any."""

    def __init__(self, module, *arguments):
        self.extra = arguments[-1] == "extra"
        self.is_dead = False
        MADE.append(arguments)

    def ask(self, request):
        if request in DEADLY[self.extra]:
            self.is_dead = True
            raise WorkerError(WORDS)
        return 0.25

    def close(self):
        pass


MADE, DEADLY = [], {True: [], False: []}


@pytest.fixture
def process(monkeypatch):
    """A LlamaProcess whose conversation is a Fake."""
    monkeypatch.setattr(llama_process, "Conversation", Fake)
    MADE.clear()
    for each in DEADLY.values():
        each.clear()
    return LlamaProcess("model.gguf", 2, 512)


def test_what_works_keeps_its_extra_buffers(process):
    process.wake()
    assert process.prompt(512) == process.generate(32) == 0.25
    assert MADE == [("model.gguf", "2", "512", "extra")]
    assert process.remark == ""


@pytest.mark.parametrize("first", [[], ["generate", 32]])
def test_a_death_in_the_first_prompt(process, first):
    """It goes on without extra buffers and says so, however long it has generated before."""
    if first:
        process.generate(32)
    DEADLY[True].append(["prompt", 512])
    assert process.prompt(512) == 0.25
    assert [each[-1] for each in MADE] == ["extra", "plain"]
    assert process.remark == f"llama.cpp without extra buffers; with them {WORDS} in prefill 512"


def test_a_death_without_extra_buffers_is_one_line(process):
    for each in DEADLY.values():
        each.append(["prompt", 512])
    for _ in range(2):
        with pytest.raises(WorkerError) as caught:
            process.prompt(512)
        assert str(caught.value) == f"llama.cpp: {WORDS} in prefill 512"
    assert len(MADE) == 2


def test_a_death_of_what_has_worked_is_one_line(process):
    """Its values must not be of two settings."""
    process.prompt(512)
    DEADLY[True].append(["prompt", 512])
    with pytest.raises(WorkerError, match=r"^llama\.cpp: killed by signal 11"):
        process.prompt(512)
    assert len(MADE) == 1


@pytest.mark.peers
class TestReal:
    """With the real llama.cpp."""

    @pytest.fixture
    def path(self, tmp_path):
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
        with random_gguf(tmp_path, TINY, "tq2_0", "f16") as path:
            yield path

    def test_it_takes_the_time_itself(self, path):
        with closing(LlamaProcess(path, 2, 64)) as process:
            process.wake()
            assert 0 < process.generate(20) < 60
            assert 0 < process.prompt(20) < 60

    def test_bad_arguments_are_one_line(self, path):
        with (
            closing(LlamaProcess(path, llama_cpp._MAX_THREADS + 1, 64)) as process,
            pytest.raises(WorkerError, match=r"^llama\.cpp: threads: 513, expected 1 to 512 in"),
        ):
            process.generate(1)

    def test_one_that_is_killed(self, path):
        """Starts again, once."""
        with closing(LlamaProcess(path, 1, 64)) as process:
            for words in ("", "without extra buffers; with them killed by signal 9 (SIGKILL)"):
                assert words in process.remark
                if not words:
                    process.wake()
                os.kill(process._process._process.pid, signal.SIGKILL)
                process._process._process.wait()
                if not words:
                    assert process.generate(2) > 0
            with pytest.raises(WorkerError, match=r"killed by signal 9 \(SIGKILL\) in decode 2$"):
                process.generate(2)
