"""bench.cost, bench.cost_model and --arch of another machine: pages and rows from stored data."""

import json
import math
from dataclasses import replace

import pytest

from bench.core import cost as cost_results
from bench.core import results
from bench.core.cost import holding
from bench.core.envelope import host_arch
from bench.core.errors import ResultsError
from bench.core.results import ENGINES, FP16, MODELLED
from bench.pages import cost_model
from bench.published import paper
from bench.suites.cost import command as cost
from bench.suites.run import command as run
from bench.suites.run import modelled
from ternops.cost import predict
from ternops.cost.latency import residence
from ternops.cost.layouts import SIZES
from ternops.cost.profile import parse
from tests.bench import run_results, small_runs
from tests.helpers.profiles import PROFILE

OTHER = {"x86": "arm", "arm": "x86"}[host_arch()]


def stored(folder, factor=1.1):
    """Speeds that the model misses by the same factor everywhere."""
    machine = parse(PROFILE, "x")
    rows = [
        {
            "size": size, "engine": engine, "threads": threads, "spread": 0.01, "context": 8,
            "bandwidth": machine.levels[-1].rate(threads),
            "tokens_per_second": factor
            * predict(SIZES[size], machine, engine, threads, context=8).tokens_per_second,
        }
        for size in ("125M", "700M") for engine in ENGINES for threads in (1, 2)
    ]  # fmt: skip
    found = {"format": 1, "profiles": [PROFILE] * 2, "rows": rows, "left_out": []}
    folder.mkdir(exist_ok=True)
    (folder / cost.COST_FILE).write_text(json.dumps(found))
    return folder


def test_errors_are_those_of_the_speed(tmp_path):
    """The same machine twice predicts as once; 1.1 times as fast is 9.1% less."""
    _, pairs = cost.load(stored(tmp_path / "run") / cost.COST_FILE)
    assert len(pairs) == 20
    assert [each.error for each in pairs] == pytest.approx([1 / 1.1 - 1] * 20)
    assert cost.errors(pairs) == pytest.approx((1 - 1 / 1.1, 1 - 1 / 1.1))


def test_a_row_is_predicted_by_the_profiles_beside_it(tmp_path):
    """Those before and behind it where it tells, which others do not change."""
    path = stored(tmp_path / "run") / cost.COST_FILE
    found = json.loads(path.read_text())
    slow = json.loads(json.dumps(PROFILE))
    for core in slow["cores"]:
        core["clock"]["value"] /= 10
    found["profiles"] = [PROFILE, PROFILE, slow, slow]
    row = next(each for each in found["rows"] if each["engine"] == "base3")
    found["rows"] = [row, *(row | {"profile": number} for number in range(4))]
    path.write_text(json.dumps(found))
    of_all, fast, between, *slowest = (pair.predicted for pair in cost.load(path)[1])
    assert fast > 1.5 * slowest[0]
    assert slowest[0] == slowest[1]
    assert of_all == between == pytest.approx((fast + slowest[0]) / 2)


def test_what_was_found_of_a_row_counts_before_what_the_profile_says(tmp_path):
    """Of its bytes in the shared cache: all, a half or none, whatever neighbours bring in."""
    path = stored(tmp_path / "run") / cost.COST_FILE
    found = json.loads(path.read_text())
    cached = json.loads(json.dumps(PROFILE))
    cached["levels"][-2] |= {
        "name": "L3", "refill": {"value": 30, "unit": "GB/s", "source": "assumed"}
    }  # fmt: skip
    found["profiles"] = [cached]
    row = next(each for each in found["rows"] if each["engine"] == "two_bit")
    row |= {"size": "700M", "profile": 0}
    found["rows"] = [row, *(row | {"found": share} for share in (0.0, 0.5, 1))]
    path.write_text(json.dumps(found))
    _, none, half, whole = (1 / pair.predicted for pair in cost.load(path)[1])
    assert none > 1.2 * whole
    assert half == pytest.approx((none + whole) / 2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_cache_holds_the_share_that_was_found(share):
    """Of that working set, from one pass to the next one."""
    machine = parse(PROFILE, "x")
    levels = (holding(replace(machine.levels[-2], refill=1e9), share, 10**9), machine.levels[-1])
    found = residence(replace(machine, levels=levels), 1e9, 1, seconds=10.0)
    assert found[levels[0].name] == pytest.approx(share)


def test_the_table_says_how_well_a_row_repeats(tmp_path):
    """Half of what lies between its rounds, beside the error; older results do not tell."""
    path = stored(tmp_path / "run") / cost.COST_FILE
    found = json.loads(path.read_text())
    found["rows"] = [found["rows"][0], found["rows"][0] | {"repeats": 0.078}]
    path.write_text(json.dumps(found))
    pairs = cost.load(path)[1]
    assert [math.isnan(pair.repeats) for pair in pairs] == [True, False]
    old, new = cost_results.table_of(pairs).markdown.splitlines()[-2:]
    assert "±7.8%" in new
    assert "±" not in old


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 7}', "{", "[" * 100_000])
def test_other_files_are_refused(tmp_path, text):
    """One line that names the file."""
    path = tmp_path / cost.COST_FILE
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"no results of bench\.cost"):
        cost.load(path)


@pytest.mark.parametrize(
    ("way", "value", "words"),
    [
        (("profiles",), None, "profiles: is None, expected a list"),
        (("profiles",), [], "profiles: none"),
        (("profiles", 1), 3, "is 3, expected the tables of a profile"),
        (("profiles", 1, "memory"), 3, "memory: is 3, expected"),
        (("rows",), {}, "rows: is {}, expected a list"),
        (("rows", 2), "x", r"rows\[2\]: is 'x', expected a row"),
        (("rows", 2, "size"), "12B", r"rows\[2\].size: is '12B', expected 125M or "),
        (("rows", 2, "engine"), ["tl1"], r"rows\[2\].engine: is \['tl1'\], expected fp16 or "),
        (("rows", 2, "threads"), None, r"rows\[2\].threads: is None, expected a number above 0"),
        (("rows", 2, "threads"), 99, r"rows\[2\]: threads=99: expected 1 to 6"),
        (("rows", 2, "bandwidth"), math.nan, r"rows\[2\].bandwidth: is nan"),
        (("rows", 2, "bandwidth"), True, r"rows\[2\].bandwidth: is True"),
        (("rows", 2, "profile"), 2, r"rows\[2\].profile: is 2, expected 0 to 1"),
        (("rows", 2, "profile"), True, r"rows\[2\].profile: is True"),
        (("rows", 2, "found"), 1.5, r"rows\[2\].found: is 1.5, expected a number from 0 to 1.0"),
        (("rows", 2, "found"), True, r"rows\[2\].found: is True"),
        (("rows", 2, "repeats"), "x", r"rows\[2\].repeats: is 'x'"),
        (("rows", 2, "tokens_per_second"), 0, r"rows\[2\].tokens_per_second: is 0"),
        (("rows", 2, "tokens_per_second"), 10**400, r"rows\[2\].tokens_per_second: is 10"),
    ],
)
def test_damaged_results_are_named_with_their_key(tmp_path, way, value, words):
    """One line: the file, the key, what it is and what was expected."""
    path = stored(tmp_path / "run") / cost.COST_FILE
    run_results.damage(path, way, value)
    with pytest.raises(ResultsError, match=words) as error:
        cost.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_there_is_no_page_of_nothing(tmp_path, capsys):
    """Where no size was measured."""
    path = stored(tmp_path / "run") / cost.COST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": []}))
    assert cost_model.main([str(path.parent)]) == 2
    assert capsys.readouterr().err == f"bench.cost_model: {path}: rows: none, nothing to show\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_table_of_no_rows_is_refused(tmp_path, capsys):
    """Sizes that the paper has not; no folder is made."""
    with pytest.raises(SystemExit) as error:
        run.main(["--arch", OTHER, "--sizes", "2B4T", "--output", str(tmp_path / "other")])
    assert error.value.code == 2
    assert "sizes=['2B4T']: expected some of 125M, " in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """bench.cost with made-up measurements: (arguments, calibrations and sizes so far, clock)."""
    steps, clock = [], [0.0]

    def calibrate(threads, announce):
        steps.append("calibrate")
        clock[0] += 20
        return PROFILE

    def measured(task, advance):
        if steps[-1] != task.size:  # of some there is a second task, where memory is short
            steps.append(task.size)
            clock[0] += 60
        limit = {"limit": 30.0, "bytes_per_token": 10**9, "test": "tg16", "seconds": (0.05,)}
        rows = [small_runs.row(size=task.size, engine=each, threads=1, **limit) for each in ENGINES]
        return rows, [], []

    monkeypatch.setattr(cost, "calibrate", calibrate)
    monkeypatch.setattr(cost.worker, "run", measured)
    monkeypatch.setattr(cost.time, "monotonic", lambda: clock[0])
    return ["--threads", "1", "--output", str(tmp_path)], steps, clock


def test_an_interrupted_run_is_kept_and_gone_on_with(quick, monkeypatch, tmp_path, capsys):
    """Calibrated before and behind each; a size whose rows are not all there is measured again."""
    arguments, steps, _ = quick
    measured = cost.worker.run

    def interrupted(task, advance):
        if task.size == "700M":
            raise KeyboardInterrupt
        return measured(task, advance)

    monkeypatch.setattr(cost.worker, "run", interrupted)
    assert cost.main(arguments) == 130
    assert "--resume goes on" in capsys.readouterr().out
    found, pairs = cost.load(tmp_path / cost.COST_FILE)
    assert found["done"] == ["125M", "350M"]
    assert {each.size for each in pairs} == {"125M", "350M"}
    assert found["tier"]
    monkeypatch.setattr(cost.worker, "run", measured)
    assert cost.main(arguments) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert cost.main([*arguments, "--full", "--resume"]) == 2
    assert "--resume: " in capsys.readouterr().err
    assert cost.main([*arguments, "--resume"]) in (0, 1)
    calibrated = [each for size in cost.DEFAULT.sizes for each in (size, "calibrate")]
    assert steps == ["calibrate", *calibrated[:4], "calibrate", *calibrated[4:]]
    found, pairs = cost.load(tmp_path / cost.COST_FILE)
    assert len(pairs) == 5 * len(ENGINES)
    # Those of 700M were measured after the calibration that going on began with.
    profiles = {row["size"]: row["profile"] for row in found["rows"]}
    assert profiles == {"125M": 0, "350M": 1, "700M": 3, "2B4T": 4, "3B": 5}


def test_it_ends_within_six_minutes(quick, tmp_path, capsys):
    """What there is no time for is left out, with a line, and measured by --resume."""
    arguments, steps, clock = quick
    assert cost.main(arguments) in (0, 1)
    assert clock[0] <= 60 * cost.MINUTES
    assert [each for each in steps if each != "calibrate"] == ["125M", "350M", "700M"]
    assert steps[0] == steps[-1] == "calibrate"
    words = " ".join(capsys.readouterr().out.split())
    assert "left out: 2B4T, 3B: no time within 6 minutes; --resume goes on" in words
    assert cost.main([*arguments, "--resume"]) in (0, 1)
    assert steps[-5:] == ["calibrate", "2B4T", "calibrate", "3B", "calibrate"]


def test_a_full_run_takes_the_time_that_it_takes(quick, tmp_path):
    """Ten sizes."""
    arguments, steps, _ = quick
    assert cost.main([*arguments, "--full"]) in (0, 1)
    assert steps[::2] == ["calibrate"] * 11
    assert steps[1::2] == list(cost.FULL.sizes)
