"""bench.run --ranks: several ranks of this machine in turn with one process."""

from __future__ import annotations

import importlib.util

import pytest

from bench.core import mpi, process
from bench.core.results import Results
from bench.pages import run_tables
from bench.suites.run import command as run
from bench.suites.run import ranks
from bench.suites.run.plan import Task
from ternops.cost.layouts import LAYOUTS
from ternops.decoder.weights import random_weights
from ternops.ranks.split import split_of

TASK = Task("125M", 0, {"base3": 2, "two_bit": 2}, (), (1, 2), 2, 2, True)
GIGABYTES = 10**10
RECORD = {"size": "125M", "engine": "base3", "threads": 2, "test": "tg2", "ranks": 2,
          "alone": [0.01, 0.02, 0.01], "together": [0.02, 0.02, 0.02]}  # fmt: skip


@pytest.mark.mpi
def test_ranks_and_one_process_take_turns():
    """A value of each for every round, of decoding and of a prompt."""
    steps = []
    found, left_out = ranks.run(TASK, 2, 4, GIGABYTES, steps.append)
    assert left_out == []
    assert [(each["engine"], each["test"]) for each in found] == [
        ("base3", "tg2"), ("base3", "pp512"), ("two_bit", "tg2"), ("two_bit", "pp512"),
    ]  # fmt: skip
    for each in found:
        assert (each["size"], each["threads"], each["ranks"]) == ("125M", 2, 2)
        count = 4 if each["test"] == "tg2" else 1
        assert len(each["alone"]) == len(each["together"]) == count
        assert all(0 < value < 60 for value in each["alone"] + each["together"])
    assert len(steps) == ranks.steps(TASK, 4)


@pytest.mark.mpi
def test_ranks_that_fail_cost_a_line():
    """Here of an engine that nobody knows: what one of them says, not what mpiexec does."""
    broken = Task("125M", 0, {"base4": 2}, (), (2,), 2, 2, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "needed_bytes", lambda *_: 0)
        found, left_out = ranks.run(broken, 2, 1, GIGABYTES, lambda what: None)
    (line,) = left_out
    assert found == []
    assert line.startswith("125M base4, 2 ranks: rank ")
    assert "KeyError" in line


def test_what_does_not_fit_is_left_out(monkeypatch):
    """Without a process."""
    monkeypatch.setattr(process, "call", None)
    found, left_out = ranks.run(TASK, 2, 2, 10**6, lambda what: None)
    assert found == []
    assert [line.split(": needs ")[0] for line in left_out] == [
        "125M base3, 2 ranks", "125M two_bit, 2 ranks"
    ]  # fmt: skip


def test_each_rank_has_its_rows_alone():
    """Of random weights as of a model's."""
    config = LAYOUTS["125M"]
    for rank in range(3):
        split = split_of(config, rank, 3)
        found = random_weights(config, "two_bit", distinct=1, part=(rank, 3))
        assert {name: each.shape[0] for name, each in found.layers[0].linear.items()} == {
            name: split.rows(name).size for name in config.linear_shapes()
        }
        assert found.head.shape == (split.vocabulary.size, config.hidden)
        assert found.embedding.shape == (config.vocabulary, config.hidden)


def test_the_table():
    """Tokens a second of both, the median of the ratios of rounds; what is no record is none."""
    results = Results({"ranks": [RECORD, {**RECORD, "size": "350M"}, 3, {"together": [0]}]})
    table = run_tables.ranks(results, ["125M"])
    (row,) = table.rows
    shown = dict(zip(table.columns, (cell.text for cell in row), strict=True))
    assert shown["one process, tokens/s"] == "100.0"
    assert shown["ranks, tokens/s"] == "50.0"
    assert shown["over one process"] == "0.50x"
    assert len(run_tables.ranks(results).rows) == 3
    assert run_tables.ranks(Results({"ranks": "x"})).rows == []


@pytest.mark.parametrize(
    ("count", "threads", "words"),
    [(1, 2, "2 or more that share out 2 threads"), (2, 3, "share out 3 threads"),
     (0, 2, "2 or more"), (-2, 2, "2 or more")],
)  # fmt: skip
def test_numbers_of_ranks_that_cannot_be(count, threads, words):
    """One line, with the option's name."""
    with pytest.raises(ValueError, match=rf"^--ranks {count}: expected .*{words}"):
        mpi.check_ranks(count, threads)


def test_without_mpi(monkeypatch, tmp_path, capsys):
    """mpi4py or mpiexec; and where mpirun has started several already."""
    arguments = ["--ranks", "2", "--threads", "2", "--output", str(tmp_path / "x")]
    monkeypatch.setattr(run.command, "chosen_threads", lambda given: [2])
    real = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "mpi4py" else real(name)
        )
        with pytest.raises(SystemExit):
            run.main(arguments)
        assert "--ranks 2: mpi4py is not installed" in capsys.readouterr().err.splitlines()[-1]
        patch.setattr(importlib.util, "find_spec", lambda name: name)
        patch.setattr(mpi, "mpiexec", raises)
        with pytest.raises(SystemExit):
            run.main(arguments)
        assert "mpiexec: not found" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(SystemExit):
        run.main(arguments)
    assert "expected no mpirun" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "x").exists()


def raises():
    raise OSError("mpiexec: not found, expected MPICH")
