"""The benchmark suite on models that are small enough for a test."""

import gc
import json
import weakref
from pathlib import Path

import pyperf
import pytest

from bench import decoding, gemv, lossless, paper, plot, run, stats
from bench.measure import Case, bandwidth, interleave, probe_cases, save_suite
from bench.probes import PROBES, Reader
from bench.shapes import QUICK, SIZES, host_arch
from ternops.decoder import Config

SMALL = Config(
    hidden=64, ffn=96, layers=2, heads=2, kv_heads=2, head_dim=32, vocabulary=128, context=64
)


@pytest.fixture
def rows(monkeypatch):
    """Decoding rows of a small model, at one and two threads."""
    monkeypatch.setitem(SIZES, "700M", SMALL)
    steps = []
    rows = decoding.measure("700M", [1, 2], tokens=3, rounds=2, advance=steps.append)
    assert len(steps) == decoding.steps("700M", [1, 2], rounds=2)
    return rows


def test_decode_rows_hold_what_was_measured(rows):
    """Each engine and thread count has a row with values, a limit and a breakdown."""
    assert [(row.engine, row.threads) for row in rows] == [
        ("fp16", 1), ("two_bit", 1), ("base3", 1), ("fp16", 2), ("two_bit", 2), ("base3", 2)
    ]  # fmt: skip
    for row in rows:
        assert len(row.case.values) == 2
        assert row.limit > 0
        assert row.case.metadata["ternops_bytes_per_token"] == row.bytes_per_token
        assert sum(row.breakdown.values()) > 0


def test_weights_are_let_go_of(monkeypatch):
    """Rows keep their values, not the gigabytes that they were measured on."""
    monkeypatch.setitem(SIZES, "700M", SMALL)
    made = []
    original = decoding.random_weights

    def remember(config, kind):
        weights = original(config, kind)
        made.append(weakref.ref(weights))
        return weights

    monkeypatch.setattr(decoding, "random_weights", remember)
    rows = decoding.measure("700M", [1], tokens=1, rounds=1, advance=lambda what: None)
    gc.collect()
    assert rows
    assert [each() for each in made] == [None] * len(decoding.ENGINES)


def test_bytes_per_token_are_counted_from_the_layout(rows):
    """fp16: two bytes a weight, the head, the norms, one embedding row, the mean of the cache."""
    c = SMALL
    linear = sum(n * k for n, k in c.linear_shapes().values()) * c.layers
    norms = 4 * c.hidden * (2 * c.layers + 1)
    cache = 2 * 2 * c.layers * c.hidden * 2  # float16
    expected = 2 * linear + 2 * c.vocabulary * c.hidden + 2 * c.hidden + norms + cache
    assert rows[0].bytes_per_token == expected


def test_suite_and_plot_are_written_whole(rows, tmp_path):
    """pyperf reads the suite back, and the plot is drawn from it alone."""
    save_suite(tmp_path / "decode.json", [case for row in rows for case in (row.case, *row.probes)])
    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "decode.json"))
    assert list(suite.get_benchmark(rows[1].case.name).get_values()) == rows[1].case.values
    picture = plot.draw(tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decode.json", "speedup.png"]


def test_a_probe_that_is_too_slow_fails_the_run(rows):
    """A share above 102% says that the probe missed the limit."""
    assert decoding.check_limits([]) == []
    rows[0].limit = rows[0].bytes_per_token / rows[0].case.median / 1.03
    assert len(decoding.check_limits(rows[:1])) == 1
    rows[0].limit *= 1.03 / 1.01
    assert decoding.check_limits(rows[:1]) == []


def test_interleaved_cases_take_turns():
    """Every round runs every case once; the first round does not count."""
    order = []
    cases = [Case(name, lambda name=name: order.append(name)) for name in "ab"]
    interleave(cases, rounds=3)
    assert "".join(order) == "abababab"
    assert [len(case.values) for case in cases] == [3, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_probe_reads_the_whole_buffer(threads):
    """The sum of the bytes, which the probe leaves behind, is right modulo 256."""
    size = 1 << 16
    reader = Reader(size)
    for probe in PROBES:
        reader._sink[:] = 0
        reader.run(probe, threads)
        assert int(reader._sink.sum()) % 256 == size % 256


def test_bandwidth_is_that_of_the_fastest_probe():
    """By the medians."""
    probes = probe_cases("test", Reader(1 << 16), 1)
    for i, case in enumerate(probes):
        case.values = [1.0 + i, 2.0 + i, 30.0]
    assert bandwidth(probes) == (1 << 16) / 2.0


def test_gemv_measures_both_engines():
    """On a matrix of a few megabytes here."""
    results = gemv.measure(4 << 20, [1], rounds=1, advance=lambda what: None)
    kernels, probes = results[1]
    assert [case.metadata["ternops_engine"] for case in kernels] == ["two_bit", "fp16"]
    assert len(probes) == len(PROBES)


def test_speedup_is_the_median_of_pairs():
    """Not the ratio of medians."""
    assert stats.speedup([2.0, 9.0, 8.0], [1.0, 3.0, 1.0]).median == 3.0


def test_paper_figures():
    """Spot checks against the printed column."""
    assert round(paper.speedup("x86", "125M"), 2) == 2.37
    assert round(paper.speedup("x86", "13B"), 2) == 6.17
    assert round(paper.speedup("arm", "70B"), 2) == 5.07
    assert paper.speedup("x86", "70B") is None
    assert paper.speedup("x86", "2B4T") is None


def test_layouts_have_the_size_that_they_are_named_for():
    """Parameters, embedding included, within a quarter of the name."""
    for size, config in SIZES.items():
        if size == "2B4T":
            continue
        linear = config.layers * sum(n * k for n, k in config.linear_shapes().values())
        total = linear + config.vocabulary * config.hidden
        unit = {"M": 1e6, "B": 1e9}[size[-1]]
        assert total / (float(size[:-1]) * unit) == pytest.approx(1, abs=0.25), size
    assert set(QUICK) <= set(SIZES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sizes", "12B"], "--sizes 12B"),
        (["--threads", "0"], "threads=0"),
        (["--threads", "200"], "--threads 200"),
        (["--arch", {"x86": "arm", "arm": "x86"}[host_arch()]], "cost model"),
        (["--output", str(Path(__file__) / "below-a-file")], "--output"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    """Nothing is measured; the line names the argument."""
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_the_main_job_from_end_to_end(monkeypatch, tmp_path, capsys):
    """Lossless proof, GEMV, decoding, tables, suites and plot, on small sizes."""
    monkeypatch.setitem(SIZES, "125M", SMALL)
    monkeypatch.setattr(run, "GEMV_BYTES", 1 << 20)
    # At this size everything lies in cache, where a probe says nothing about the kernels.
    monkeypatch.setattr(decoding, "MOST_SHARE", float("inf"))
    monkeypatch.setattr(run, "MOST_SHARE", float("inf"))
    arguments = ["--quick", "--sizes", "125M", "--threads", "1", "--output", str(tmp_path)]
    assert run.main(arguments) == 0
    names = {"lossless.json", "gemv.json", "decode.json", "speedup.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    record = json.loads((tmp_path / "lossless.json").read_text("utf-8"))
    assert all(all(tier.values()) for tier in record["bit_identical"].values())
    assert "bit-identical" in capsys.readouterr().out


def test_a_wrong_logit_is_no_lossless_run(monkeypatch):
    """The proof compares digests of all logits."""
    monkeypatch.setattr(lossless, "_digests_of", lambda tier, threads: dict.fromkeys(threads, "0"))
    monkeypatch.setattr(lossless, "WINDOWS", 1)
    assert not lossless.prove([1], lambda what: None).lossless
