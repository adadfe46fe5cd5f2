"""bench.serve: what clients note, the figures from it, what is written and drawn."""

from __future__ import annotations

import json

import pytest

from bench.core.goals import Goal
from bench.pages.plots import serve as plot
from bench.suites.serve import command, models
from bench.suites.serve.clients import Answer
from bench.suites.serve.sections import SECTIONS
from ternops.decoder import open_checkpoint


def test_an_answer_tells_times():
    answer = Answer({}, times=[1.0, 1.5, 1.75, 2.25])
    assert answer.first == 0.5
    assert answer.gaps == [0.25, 0.5]


def test_failures_are_asked_to_be_none():
    goal = Goal("crowd", "errors", 0, 2, " requests")
    assert not goal.passed
    assert goal.words == ("<= 0 requests", "2 requests", "MISSED")
    assert Goal("overhead", "more", 0.03, 0.0213, " %").words == ("<= 3 %", "2.13 %", "pass")


@pytest.mark.slow
def test_every_token_of_a_random_model_has_a_text(tmp_path):
    """An answer has an event with a text for its first one, and for its last one."""
    folder = models.folder("125M", tmp_path)
    tokenizer = open_checkpoint(folder).tokenizer()
    vocabulary = open_checkpoint(folder).config.vocabulary
    assert all(tokenizer.decode([token]) for token in range(300, vocabulary, 997))


@pytest.mark.slow
def test_a_quick_run_of_the_tiny_model(tmp_path, capsys):
    """All that needs no other server and no long time; it can be drawn again."""
    arguments = ["--size", "tiny", "--quick", "--threads", "1", "--output", str(tmp_path)]
    only = ["overhead", "throughput", "prefix"]
    assert command.main([*arguments, "--only", *only]) == 0
    found = json.loads((tmp_path / command.SERVE_FILE).read_text())
    assert [each["section"] for each in found["goals"]] == [
        "overhead",
        *3 * ["throughput"],
        "prefix",
    ]
    assert all(each["seen"] is not None for each in found["goals"])
    assert found["commit"] is not None
    assert (tmp_path / "serve.svg").exists()
    drawn = (tmp_path / "serve.png").read_bytes()
    assert command.main([*arguments, "--draw"]) == 0
    assert (tmp_path / "serve.png").read_bytes() == drawn
    assert "tokens/s" in capsys.readouterr().out
    assert plot.figure({**found, "raw": {}}) is None
    assert set(only) <= SECTIONS.keys()
