"""Every file of results says which commit, version, tier and machine it is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ternops
from bench.arm import stored
from bench.core import command, envelope, pyperf_files, results
from bench.core import kernels as kernel_results
from bench.core.errors import ResultsError
from bench.core.measure import Case
from bench.core.pyperf_files import save_suite
from bench.core.results import Results
from bench.models import dummy
from bench.pages import cost_model, plot, provenance, report, reproduction
from bench.pages.plots import roofline
from bench.suites.cost import command as cost
from bench.suites.decode import command as decode
from bench.suites.kernels import command as kernels
from bench.suites.run import command as run
from ternops.cpu_caches import cpu_model
from ternops.isa import detect
from tests.bench.small_runs import row

COMMITTED = Path(__file__).parents[3] / "results"


@pytest.fixture
def head(monkeypatch):
    """What every file written here says."""
    monkeypatch.setattr(envelope, "commit", lambda: "0123456789ab")
    found = envelope.envelope(1)
    assert tuple(found) == envelope.ENVELOPE
    assert found["tier"] == detect.TIER.name
    assert found["ternops"] == ternops.__version__
    return {key: value for key, value in found.items() if key != "format"}


def suite(path):
    return pyperf_files.envelope_of(pyperf_files.load_suite(path))


def test_every_file_has_one_envelope(head, tmp_path):
    """JSON or pyperf: the same fields with the same names."""
    results.save(tmp_path, Results(envelope.about("x86", [], {}), [row()]))
    save_suite(tmp_path / "kernels.json", [Case("a", str, values=[1.0])])
    stored.save(tmp_path, {})
    run, arm = (json.loads((tmp_path / name).read_text()) for name in ("run.json", "arm.json"))
    found = [run, arm, suite(tmp_path / "decode.json"), suite(tmp_path / "kernels.json")]
    for each in found:
        assert {key: each[key] for key in envelope.ENVELOPE} == {"format": each["format"], **head}


def test_rows_of_another_machine_keep_its_envelope(head, tmp_path):
    """As modelled ones have; this machine's is not put in its place."""
    results.save(tmp_path, Results({"cpu": "M2 Ultra", "tier": "neon_dot"}, [row()]))
    assert suite(tmp_path / "decode.json") == {"format": 1, "cpu": "M2 Ultra", "tier": "neon_dot"}


def test_a_suite_of_another_format_is_one_line(tmp_path):
    """Which says what to do."""
    path = tmp_path / "kernels.json"
    save_suite(path, [Case("a", str, values=[1.0])])
    path.write_text(path.read_text().replace('"envelope_format":1', '"envelope_format":7'))
    with pytest.raises(ResultsError, match="format 7, expected 1: measure it again"):
        kernel_results.load_cases(path)


def test_committed_results_are_read(tmp_path):
    """Older files have a part of the envelope, or none."""
    (folder,) = [path.parent for path in COMMITTED.glob("*/run.json")]
    assert results.load(folder).rows
    assert kernel_results.load_cases(folder / "kernels.json")
    assert cost.load(folder / "cost.json")[1]
    assert stored.load(COMMITTED / "arm-static")
    assert provenance.line(folder).startswith("Measured on ")


def test_the_line_below_a_table(head, tmp_path, capsys):
    """Machine and tier once, then each file's commit; `python -m bench.provenance` prints it."""
    known = {**envelope.about("x86", [], {}), "cpu": "Some CPU", "tier": "avx2", "commit": "abc"}
    results.save(tmp_path, Results(known, [row()]))
    assert provenance.line(tmp_path) == "Measured on Some CPU (tier avx2). bench.run: commit abc."
    save_suite(tmp_path / "kernels.json", [Case("a", str, values=[1.0])])
    (tmp_path / "cost.json").write_text(
        json.dumps({"format": 1, "profiles": [{"name": "Some CPU"}]})
    )
    assert provenance.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        f"Measured on Some CPU (tier avx2) and {cpu_model()} (tier {detect.TIER.name}). "
        "bench.run: commit abc; bench.kernels: commit 0123456789ab; "
        "bench.cost: a commit that was not recorded.\n"
    )


@pytest.mark.parametrize("text", [None, "{", "[]", "3", '{"benchmarks": 3}'])
def test_other_folders_are_one_line(tmp_path, capsys, text):
    """Without results, or with a file that is none."""
    if text is not None:
        (tmp_path / "kernels.json").write_text(text)
    assert provenance.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_resumed_run_names_the_commits_of_all_its_rows():
    """In the order in which they measured; each once."""
    assert envelope.both("a", "b") == "a, b"
    assert envelope.both("a, b", "b") == "a, b"
    assert envelope.both(None, "") == ""


def test_the_machine_is_what_its_system_calls_it(monkeypatch):
    """LLVM guesses a name from the model number: "rocketlake" of a Sapphire Rapids."""
    monkeypatch.setattr(command, "cpu_model", lambda: "Intel(R) Xeon(R) Platinum 8481C @ 2.70GHz")
    monkeypatch.setattr(command, "default_threads", lambda: 2)
    monkeypatch.setattr("ternops.simd.host.cpu_name", lambda: "rocketlake")
    folder = command._slug()
    assert folder == "intel-r-xeon-r-platinum-8481c-2-70ghz-2-cpus"


@pytest.mark.parametrize("program", [cost, decode, dummy, kernels, run])
def test_options_have_their_whole_names(program, capsys):
    """A run records its command, which is printed: no "--out" for "--output"."""
    with pytest.raises(SystemExit) as stop:
        program.main(["--out", "results"])
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "file"),
    [
        (cost_model, "cost.json"), (plot, "run.json"), (report, "run.json"),
        (reproduction, "run.json"), (roofline, "kernels.json"),
    ],
)  # fmt: skip
def test_the_help_names_the_file_that_is_read(program, file, capsys):
    """Of the folder that is asked for."""
    with pytest.raises(SystemExit):
        program.main(["--help"])
    assert f"has a {file}" in capsys.readouterr().out
