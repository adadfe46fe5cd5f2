"""bench.scaling: data types and their bits, the best at equal bits, what is written and drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.core.results import SCALING_FILE
from bench.pages.plots import scaling
from bench.suites.scaling import command, models, rounding

KINDS = pytest.mark.parametrize("kind", rounding.DATA_TYPES.values(), ids=lambda each: each.name)


@pytest.fixture
def weight():
    return np.random.default_rng(0).standard_normal((6, 96), np.float32)


@pytest.fixture
def committed():
    path = models.ROOT / "results" / "scaling" / SCALING_FILE
    return json.loads(path.read_text("utf-8"))


@KINDS
def test_weights_are_few_levels_times_a_scale_of_their_group(kind, weight):
    for group in kind.groups:
        found = rounding.rounded(weight, kind, group)
        size = group if len(kind.groups) == 1 else rounding.fitting(group, 96)
        columns = 96 if size == rounding.ROW else size
        groups = found.weight.reshape(-1, columns)
        most = 2 ** round(kind.bits + 0.1)
        assert max(len(np.unique(np.abs(each))) for each in groups) <= most
        expected = kind.bits * weight.size + kind.scale_bits * len(groups)
        assert found.bits == pytest.approx(expected)
        error = np.square(found.weight - weight).sum() / np.square(weight).sum()
        most = {1: 0.6, 1.6: 0.5, 2: 0.3, 3: 0.1, 4: 0.05, 8: 0.001}[kind.bits]
        assert error < {"e5m2": 0.003}.get(kind.name, most)


def test_small_groups_and_more_bits_are_closer(weight):
    def error(name, group):
        found = rounding.rounded(weight, rounding.DATA_TYPES[name], group).weight
        return np.square(found - weight).sum()

    names = ["ternary, mse", "2-bit, mse", "int3", "int4", "int8"]
    errors = [error(name, 32) for name in names]
    assert errors == sorted(errors, reverse=True)
    assert error("int4", 16) < error("int4", rounding.ROW)


@pytest.mark.parametrize(
    ("group", "columns", "expected"),
    [(64, 128, 64), (128, 96, rounding.ROW), (64, 96, 32), (128, 192, 64), (16, 24, rounding.ROW),
     (128, 128, rounding.ROW), (rounding.ROW, 128, rounding.ROW), (32, 32, rounding.ROW)],
)  # fmt: skip
def test_a_group_that_does_not_divide_becomes_the_largest_that_does(group, columns, expected):
    assert rounding.fitting(group, columns) == expected


def test_the_best_at_equal_bits_is_the_lowest_line():
    rows = [
        {"name": name, "bits": bits, "perplexity": perplexity}
        for name, line in {"a": [(1, 16), (100, 4)], "b": [(10, 9), (1000, 1)]}.items()
        for bits, perplexity in line
    ]
    # At 10 bits the line of a is at 8, half-way in logarithms; at 100 that of b is at 3.
    assert rounding.best_by_budget(rows, [10, 100]) == ["a", "b"]


def test_sizes_that_are_too_few_have_no_best():
    """No number of bits is one that each data type reaches; they are drawn all the same."""
    names = (rounding.FLOAT, None, 16), ("sign", "row", 1), ("int8", "row", 8)
    rows = [
        {"size": "a", "parameters": 1, "name": name, "group": group, "bits": 1e6 * bits,
         "bits a weight": bits, "perplexity": 20 / bits}
        for name, group, bits in names
    ]  # fmt: skip
    assert command.best(rows) == []
    assert len(scaling.figure({"rows": rows, "best": []}).axes) == 2


def test_every_size_has_a_row_for_each_data_type_and_group(monkeypatch, weight, tmp_path):
    seen = []

    class Model:
        def __init__(self, folder):
            self.linear, self.others = {"up_proj": weight}, 10

        def perplexity(self, windows, weight_of):
            seen.append(weight_of("up_proj"))
            return 2 + float(np.square(seen[-1] - weight).sum())

    monkeypatch.setattr(models, "Model", Model)
    monkeypatch.setattr(models, "held_out", lambda cache, size, count: np.zeros((count, 4)))
    done = []
    rows = command.measure([models.Size(32, 1), models.Size(64, 1)], tmp_path, 2, done.append)
    assert len(done) == 2 * len(rounding.DATA_TYPES)
    kinds = rounding.DATA_TYPES.values()
    assert len(rows) == len(seen) == 2 * (1 + sum(len(each.groups) for each in kinds))
    first = rows[0]
    assert (first["name"], first["perplexity"]) == (rounding.FLOAT, 2)
    assert first["bits"] == 16 * (weight.size + 10)
    assert all(row["bits"] == row["bits a weight"] * weight.size + 160 for row in rows)
    assert len({(row["size"], row["name"], row["group"]) for row in rows}) == len(rows)


def test_the_committed_results_are_drawn_and_say_that_4_bits_are_best(committed):
    assert len(scaling.figure(committed).axes) == 2
    assert committed["best"] == command.best(committed["rows"])
    four = [name for name, each in rounding.DATA_TYPES.items() if each.bits == 4]
    assert {each["name"].split(",")[0] for each in committed["best"]} <= set(four)
    names = {row["name"] for row in committed["rows"]}
    assert set(scaling.LOOKS) <= names <= {rounding.FLOAT, *rounding.DATA_TYPES}
    assert {row["size"] for row in committed["rows"]} == {each.name for each in models.SIZES}


def test_results_are_drawn_again(committed, tmp_path, capsys):
    (tmp_path / SCALING_FILE).write_text(json.dumps(committed), "utf-8")
    assert command.main(["--draw", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    assert "nf4, group 64" in capsys.readouterr().out


def test_bad_input_is_said_in_a_line(tmp_path, capsys):
    assert command.main(["--draw", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("bench.scaling: ")
    (tmp_path / SCALING_FILE).write_text('{"format": 0}', "utf-8")
    assert command.main(["--draw", "--output", str(tmp_path)]) == 2
    assert "format" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--windows", "0"])
    with pytest.raises(SystemExit):
        command.main(["--sizes", "1x1"])


@pytest.mark.peers
def test_a_model_is_trained_and_rounded(monkeypatch, tmp_path):
    training = models._examples("training")
    text = "def f(x):\n    return x + 1\n" * 400
    monkeypatch.setattr(training, "read_sources", lambda: ([text], [text]))
    size = models.Size(32, 1)
    models.train([size], tmp_path, 1, steps=30)
    model = models.Model(models.folder_of(size, tmp_path))
    windows = models.held_out(tmp_path, size, 2)
    assert windows.shape == (2, models.CONTEXT)
    floats = model.perplexity(windows, model.linear.__getitem__)
    assert 1 < floats < models.VOCABULARY
    assert model.perplexity(windows, lambda name: 0 * model.linear[name]) > 1.05 * floats
    assert model.perplexity(windows, model.linear.__getitem__) == floats
    monkeypatch.delattr(training, "read_text")
    models.train([size], tmp_path, 1)  # is there already
