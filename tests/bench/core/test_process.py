"""A process that is asked one thing after another: what goes wrong in it is a line here."""

from __future__ import annotations

import re
import signal
from contextlib import closing

import pytest

from bench.core.process import Conversation, WorkerError
from tests.helpers import processes


@pytest.fixture
def conversation(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(processes.ROOT))
    with closing(Conversation("tests.programs.conversation")) as found:
        yield found


def test_answers_come_in_order_and_errors_are_among_them(conversation):
    """Whatever the process prints, as libraries do."""
    for how, what in (("", 1.5), ("print", "{}"), ("", [None, "é"])):
        assert conversation.ask([how, what]) == what
    with pytest.raises(WorkerError, match=r"^no such thing$"):
        conversation.ask(["raise", "no such thing\nand much more"])
    assert not conversation.is_dead
    assert conversation.ask(["", 2]) == 2


@pytest.mark.parametrize(
    ("how", "what", "words"),
    [("die", signal.SIGSEGV, f"killed by signal {signal.SIGSEGV.value} (SIGSEGV)"),
     ("die", signal.SIGKILL, f"killed by signal {signal.SIGKILL.value} (SIGKILL)"),
     ("leave", 3, "exit code 3"), ("leave", "last words", "last words")],
)  # fmt: skip
def test_death_is_a_line(conversation, how, what, words):
    """And stays one, whatever is asked afterwards."""
    for _ in range(2):
        with pytest.raises(WorkerError, match=f"^{re.escape(words)}$"):
            conversation.ask([how, what])
        assert conversation.is_dead


def test_a_module_that_there_is_not():
    with (
        closing(Conversation("tests.programs.no_such_module")) as found,
        pytest.raises(WorkerError, match=r"No module named tests\.programs\.no_such_module"),
    ):
        found.ask(["", 1])


def test_closing_ends_the_process(conversation):
    """Twice is once."""
    conversation.ask(["", 1])
    conversation.close()
    assert conversation.is_dead
    conversation.close()
