"""The rows of a run are read back as they were, and files that hold none are refused."""

import json
from dataclasses import replace

import pyperf
import pytest

from bench.core import results
from bench.core.errors import ResultsError
from bench.core.results import MEASURED, MODELLED, Probe, Results
from bench.suites.run import worker
from tests.bench.small_runs import row, same


def test_results_are_read_back_as_they_were(found, tmp_path):
    """By us and by pyperf."""
    probes = [Probe({"name": each.name, **each.metadata}, tuple(each.values))
              for each in found.probes]  # fmt: skip
    special = [row(joules=2.5, energy=MEASURED), row(size="1B", kind=MODELLED, seconds=(1.0,))]
    saved = Results({"arch": "x86"}, [*found.rows, *special], probes)
    results.save(tmp_path, saved)
    back = results.load(tmp_path)
    assert back.rows[:-1] == saved.rows[:-1] or all(map(same, back.rows, saved.rows))
    assert [each.rate for each in back.probes] == [each.rate for each in probes]
    assert back.about == {"format": results.FORMAT, "arch": "x86"}
    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "decode.json"))
    assert suite.get_benchmark(found.rows[0].name).get_values() == found.rows[0].seconds
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decode.json", "run.json"]


@pytest.mark.parametrize(
    ("break_", "words"),
    [
        (lambda f: (f / "run.json").write_text('{"format": 1}'), "format 1, expected 2"),
        (lambda f: (f / "run.json").write_text("[]"), "format None, expected 2"),
        (lambda f: (f / "run.json").write_text('{"form'), "not complete"),
        (lambda f: (f / "decode.json").write_text("{}"), "not complete"),
        (lambda f: edit(f, "ternops_kind", "guessed"), "is 'guessed', expected measured, cycled"),
        (lambda f: edit(f, "ternops_threads", "two"), "no valid 'ternops_threads'"),
        (lambda f: edit(f, "ternops_threads", 0), "has ternops_threads 0"),
        (lambda f: edit(f, "ternops_limit", -1.0), "has ternops_limit -1.0"),
        (lambda f: edit(f, "ternops_bytes", 0), "no usable bytes"),
    ],
)
def test_results_that_are_none_are_one_line(tmp_path, break_, words):
    """Half-written, of another version, or wrong in a field."""
    probe = Probe(
        {"name": "read", "ternops_probe": "p", "ternops_bytes": 8, "ternops_threads": 2}, (1.0,)
    )
    results.save(tmp_path, Results({"arch": "x86"}, [row(limit=8.0)], [probe]))
    results.load(tmp_path)
    break_(tmp_path)
    with pytest.raises(ResultsError, match=words) as error:
        results.load(tmp_path)
    assert "\n" not in str(error.value)


def edit(folder, key, value):
    """Change what the suite says."""
    suite = json.loads((folder / "decode.json").read_text("utf-8"))
    for metadata in (suite.get("metadata", {}), *(
        each.get("metadata", {}) for each in suite["benchmarks"]
    )):  # fmt: skip
        if key in metadata:
            metadata[key] = value
    (folder / "decode.json").write_text(json.dumps(suite), "utf-8")


def test_rows_of_several_processes_are_merged():
    """Values one behind another; a share is the mean of the processes'; none if one lacks it."""
    one = [row(seconds=(0.5, 0.5), limit=4.0), row(engine="tl1"), row(engine="tl2", limit=1.0)]
    two = [row(seconds=(1.0, 1.0), limit=1.25), row(engine="tl2")]
    merged, unlimited = worker.merged([one, two])
    assert merged.seconds == (0.5, 0.5, 1.0, 1.0)
    assert merged.share == pytest.approx((0.5 + 0.8) / 2)
    assert unlimited.limit == 0


def test_speedups_are_paired_where_rows_took_turns():
    """The median of ratios within a group; else the ratio of medians."""
    base, fast = row(seconds=(2.0, 9.0, 8.0), group="a"), row(seconds=(1.0, 3.0, 1.0), group="a")
    assert fast.over(base).median == 3.0
    assert fast.over(replace(base, group="b")).median == 8.0
