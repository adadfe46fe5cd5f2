"""bench.correctness: what is counted, encodings that agree, the page of committed results."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.core.correctness import CORRECTNESS_FILE
from bench.core.errors import ResultsError
from bench.pages import correctness as page
from bench.suites.correctness import command, engines
from bench.suites.correctness.engines import Forward
from tests.helpers import processes

RESULTS = processes.ROOT / "results" / "correctness"
BITNET, GROUPED, RANDOM = command.SUBJECTS


def engine_of(successors):
    """One that takes successors[token] for the likeliest after a token."""

    def logits(tokens):
        found = np.zeros((len(tokens), len(successors)))
        found[np.arange(len(tokens)), np.array(successors)[tokens]] = 1
        return found

    return Forward("a name", "nothing", logits)


def test_what_is_counted():
    """Greedy tokens up to the first that differs, likeliest ones at each place."""
    texts = [[0, 1, 2, 3], [3, 2, 1, 0]]
    asked = command.measure(engine_of([1, 2, 3, 0]), texts, 5, 2)
    assert asked["greedy"] == [[2, 3, 0, 1, 2], [3, 0, 1, 2, 3]]
    same = command.row(engine_of([1, 2, 3, 0]), asked, asked)
    assert (same["likeliest"], same["positions"]) == (6, 6)
    assert (same["greedy"], same["asked"]) == (10, 10)
    right, wrong = -np.log(np.e / (np.e + 3)), -np.log(1 / (np.e + 3))
    assert same["perplexity"] == pytest.approx(np.exp((3 * right + 3 * wrong) / 6))
    other = engine_of([1, 2, 1, 0])  # after 2 another one
    found = command.row(other, command.measure(other, texts, 5, 2), asked)
    assert (found["likeliest"], found["greedy"]) == (4, 1 + 0)


@pytest.mark.parametrize("subject", [BITNET, GROUPED, RANDOM], ids=["bitnet", "groups", "random"])
def test_encodings_agree_to_the_last_digit(subject, monkeypatch):
    """And with the float64 reference nearly everywhere, without any peer."""

    def none(*arguments):
        raise engines.LeftOut("not asked")

    monkeypatch.setattr(engines, "transformers", none)
    monkeypatch.setattr(engines, "llama_cpp", none)
    source = (processes.ROOT / "ternops" / "team.py").read_text("utf-8")
    left_out: list[str] = []
    with command.source_of(subject) as path:
        texts = [each[:80] for each in command.texts_of(subject, path, source, 2)]
        rows = list(command.compare(subject, path, texts, 2, left_out, steps=6, prompt=10))
    assert len(left_out) == 1 + len(subject.kinds)
    same = [each for each in rows if each["rounds"].endswith("float16 cache")]
    assert len(same) == (2 if subject is GROUPED else 4)
    assert len({each["perplexity"] for each in same}) == 1
    assert {(each["likeliest"], each["greedy"]) for each in same} == {(158, 12)}
    (double,) = (each for each in rows if each["engine"] == "NumPy, float64")
    assert double["perplexity"] == pytest.approx(rows[0]["perplexity"], rel=1e-2)
    assert double["likeliest"] > 0.95 * 158


def test_the_committed_page():
    """Is that of the committed results; encodings of one model are alike in them."""
    found = json.loads((RESULTS / CORRECTNESS_FILE).read_text("utf-8"))
    assert [each["model"] for each in found["models"]] == [each.name for each in command.SUBJECTS]
    for model in found["models"]:
        rows = [each for each in model["rows"] if each["engine"].startswith("ternops")]
        assert len({each["perplexity"] for each in rows if "float16" in each["rounds"]}) == 1
        assert model["rows"][0]["likeliest"] == model["rows"][0]["positions"]


def test_the_page_is_drawn_from_the_results(tmp_path):
    assert page.write(RESULTS, tmp_path / "PAGE.md").read_text("utf-8") == (
        processes.ROOT / "docs" / "CORRECTNESS.md"
    ).read_text("utf-8")


def test_results_that_are_none(tmp_path, capsys):
    """One line."""
    with pytest.raises(ResultsError, match=r"correctness.json: no results of bench.correctness"):
        page.write(tmp_path, tmp_path / "PAGE.md")
    (tmp_path / CORRECTNESS_FILE).write_text('{"format": 1, "models": [{}]}')
    with pytest.raises(ResultsError, match="'model'"):
        page.write(tmp_path, tmp_path / "PAGE.md")
    assert command.main(["--draw", "--output", str(tmp_path)]) == 2
    assert command.main(["--windows", "0"]) == 2
    assert "--windows 0: expected 1 or more" in capsys.readouterr().err
