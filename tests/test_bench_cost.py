"""bench.cost, bench.cost_model and --arch of another machine: pages and rows from stored data."""

import json

import pytest

from bench import cost, cost_model, modelled, paper, results, run
from bench.about import host_arch
from bench.plan import ENGINES
from bench.results import FP16, MODELLED
from bench.stats import ResultsError
from ternops.cost import predict
from ternops.cost.hardware import parse
from ternops.cost.layouts import SIZES
from tests.test_cost_hardware import PROFILE

OTHER = {"x86": "arm", "arm": "x86"}[host_arch()]


def stored(folder, factor=1.1):
    """Speeds that the model misses by the same factor everywhere."""
    machine = parse(PROFILE, "x")
    rows = [
        {
            "size": size, "engine": engine, "threads": threads, "spread": 0.01, "context": 8,
            "bandwidth": machine.levels[-1].rate(threads),
            "tokens_per_second": factor
            * predict(SIZES[size], machine, kind, threads, context=8).tokens_per_second,
        }
        for size in ("125M", "700M") for engine, kind in ENGINES.items() for threads in (1, 2)
    ]  # fmt: skip
    found = {"format": 1, "profiles": [PROFILE] * 2, "rows": rows, "left_out": []}
    folder.mkdir(exist_ok=True)
    (folder / cost.RESULTS).write_text(json.dumps(found))
    return folder


def test_errors_are_those_of_the_speed(tmp_path):
    """The same machine twice predicts as once; 1.1 times as fast is 9.1% less."""
    _, pairs = cost.load(stored(tmp_path / "run") / cost.RESULTS)
    assert len(pairs) == 20
    assert [each.error for each in pairs] == pytest.approx([1 / 1.1 - 1] * 20)
    assert cost.errors(pairs) == pytest.approx((1 - 1 / 1.1, 1 - 1 / 1.1))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 7}', "{"])
def test_other_files_are_refused(tmp_path, text):
    """One line that names the file."""
    path = tmp_path / cost.RESULTS
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"no results of bench\.cost"):
        cost.load(path)


def test_the_page_says_what_the_data_say(tmp_path):
    """Every pair, every fit, the report's column; the pictures are beside the data."""
    folder = stored(tmp_path / "run")
    target, *pictures = cost_model.write(folder, tmp_path / "PAGE.md")
    page = target.read_text("utf-8")
    lines = [line for line in page.splitlines() if line.endswith("| -9.1% |")]
    assert len(lines) == 20
    assert "Median error 9.1%, worst 9.1%" in page
    assert "| BitNet b1.58 2B4T | 0.028 | 0.028 |" in page
    for size, row in paper.DECODE["x86"].items():
        assert f"| {size} | " in page
        assert f"| {row.ternary} |" in page
    assert {each.stem for each in pictures} == {
        "cost-predicted", "cost-parts", "cost-energy", "cost-machines"
    }  # fmt: skip
    assert all(each.stat().st_size > 5000 for each in pictures)


@pytest.mark.parametrize("arch", ["x86", "arm"])
def test_rows_of_another_architecture_are_modelled(arch):
    """Every size of the paper, near its figures, and never without the word."""
    found = modelled.results_for(arch, {}, list(SIZES))
    assert {row.kind for row in found.rows} == {MODELLED}
    assert {row.energy for row in found.rows} == {MODELLED}
    for size, published in paper.DECODE[arch].items():
        rows = {row.engine: row for row in found.rows if row.size == size}
        assert (FP16 in rows) >= (published.fp16 is not None)
        assert len(rows) >= 1
    assert any(line.startswith("2B4T") for line in found.about["left_out"])


def test_the_other_architectures_table_is_written(tmp_path, capsys):
    """In a folder like that of a run, with the picture beside the paper's figures."""
    folder = tmp_path / "other"
    assert run.main(["--arch", OTHER, "--output", str(folder)]) == 0
    output = capsys.readouterr().out
    assert "modelled" in output
    found = results.load(folder)
    assert found.about["arch"] == OTHER
    assert {row.kind for row in found.rows} == {MODELLED}
    for name in ("speedup.png", "energy.png", "report.html"):
        assert (folder / name).exists()
    with pytest.raises(SystemExit):
        run.main(["--arch", OTHER, "--output", str(folder)])
    assert "--force" in capsys.readouterr().err
