"""bench.run as a command: what it measures, keeps, goes on with and refuses."""

import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.core import command, process, results
from bench.core.envelope import host_arch
from bench.core.results import ENGINES, Results
from bench.limits import levels
from bench.pages import plot
from bench.pages.plots import speedup
from bench.suites.lossless import proof as lossless
from bench.suites.run import command as run
from bench.suites.run import products, ranks, worker
from bench.suites.run.decoding import CONTENDERS
from bench.suites.run.plan import Effort, Task
from ternops.cost.layouts import SIZES
from ternops.isa import detect
from tests.bench.small_runs import SMALL, row, same
from tests.helpers.marks import FEW, OF_TIERS

TIERS, PROVE = lossless.tiers, lossless.prove


@pytest.fixture
def small(monkeypatch):
    """125M is a small model."""
    monkeypatch.setitem(SIZES, "125M", SMALL)


@pytest.fixture
def quick(small, monkeypatch, tmp_path):
    """A run of seconds: workers in this process, which knows the small layout; of one tier."""
    monkeypatch.setattr(run, "QUICK", Effort(("125M",), 2, 2, 1e9, 2, 1e9))
    monkeypatch.setattr(process, "call", call_here)
    monkeypatch.setattr(run, "MAX_SHARE", math.inf)  # all lies in cache, where probes say nothing
    monkeypatch.setattr(levels, "DRAM_BYTES", 1 << 20)
    monkeypatch.setattr(lossless, "tiers", lambda few: [detect.TIER.name])
    monkeypatch.setattr(lossless, "prove", lambda threads, names, *_: proved(*threads, *names))
    monkeypatch.setattr(lossless, "compile_ahead", lambda names, advance: None)
    monkeypatch.setattr(lossless, "WINDOWS", 1)
    monkeypatch.setattr(lossless, "CONTEXT", 32)
    monkeypatch.setattr(products, "_LAYOUT", SMALL)
    folder = tmp_path / "results"
    return folder, ["--quick", "--threads", "1", "--output", str(folder)]


@pytest.fixture
def one_picture(monkeypatch):
    """Of those that a run draws, each of which takes a second."""
    monkeypatch.setattr(plot, "PICTURES", {"speedup": speedup})


@functools.cache
def proved(threads, *names):
    """The same proof for all runs here, of one thread."""
    return PROVE([threads], names, lambda what: None)


def call_here(module, request, advance):
    """What a worker does, through JSON as there."""
    request = json.loads(json.dumps(request))
    if module == "bench.suites.run.products":
        found = products.measure(request["threads"], advance)
    else:
        found = worker._measure(request, advance)
    return json.loads(json.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize("few", [(detect.TIER.name,), pytest.param(FEW, marks=OF_TIERS)])
def test_the_main_job_from_end_to_end(quick, few, monkeypatch, capsys):
    """Limits, proof, decoding, prefill, products; tables, suites, plots and report."""
    folder, arguments = quick
    if few == FEW:
        monkeypatch.setattr(lossless, "tiers", TIERS)
    assert run.main([*arguments, "--no-peers"]) == 0
    written = {path.name for path in folder.iterdir()}
    assert {"run.json", "decode.json", "speedup.png", "report.html"} <= written
    found = results.load(folder)
    assert {row.engine for row in found.rows} == set(ENGINES)
    # Two rounds of two processes; of prompts one.
    assert {(row.is_decode, len(row.seconds)) for row in found.rows} == {(True, 4), (False, 2)}
    assert found.about["done"] == ["125M"]
    assert {each["tier"] for each in found.about["lossless"]["table"]} == set(few)
    assert {each["what"] for each in found.about["limits"]} >= {"DRAM", "dot"}
    assert found.about["command"].startswith("python -m bench.run --quick")
    output = capsys.readouterr().out
    assert "tg2" in output
    assert "pp512" in output


@pytest.mark.slow
@pytest.mark.usefixtures("one_picture")
def test_results_are_never_overwritten_unasked(quick, capsys):
    """A folder that has some is refused; --force replaces them."""
    folder, arguments = quick
    results.save(folder, Results({"arch": "x86"}, [row()]))
    before = (folder / "decode.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    assert stop.value.code == 2
    assert "has a run.json already; --force replaces it" in one_line(capsys)
    assert (folder / "decode.json").read_bytes() == before
    assert run.main([*arguments, "--force", "--no-peers"]) == 0
    assert {row.size for row in results.load(folder).rows} == {"125M"}


def test_a_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    """Numbered, where the machine's has results; --resume takes the last one that has."""
    monkeypatch.chdir(tmp_path)
    first = command.chosen_folder(None, "run.json")
    assert first.parent.name == "results"
    assert command.chosen_folder(None, "run.json", resume=True) == first
    for number in (2, 3):
        last = command.chosen_folder(None, "run.json")
        (last / "run.json").touch()
        assert command.chosen_folder(None, "run.json", resume=True) == last
        assert command.chosen_folder(None, "run.json", force=True) == first
        assert command.chosen_folder(None, "other.json") == first
        assert command.chosen_folder(None, "run.json").name == f"{first.name}-{number}"


@pytest.mark.slow
@pytest.mark.usefixtures("one_picture")
def test_resume_goes_on_where_it_was_interrupted(quick, monkeypatch, capsys):
    """Ctrl-C keeps what there is; --resume measures the rest, but only of a run like it."""
    folder, arguments = quick
    monkeypatch.setitem(SIZES, "350M", SMALL)
    arguments += ["--no-peers", "--sizes", "125M", "350M"]
    call = process.call

    def interrupted(module, request, advance):
        if request.get("size") == "350M":
            raise KeyboardInterrupt
        return call(module, request, advance)

    monkeypatch.setattr(process, "call", interrupted)
    assert run.main(arguments) == 130
    assert "--resume goes on" in capsys.readouterr().out
    assert results.load(folder).about["done"] == ["125M"]
    first = results.load(folder).rows
    with pytest.raises(SystemExit):
        run.main([*arguments, "--resume", "--engines", "fp16", "base3"])
    assert "has other options, those of `python -m bench.run --quick" in one_line(capsys)
    monkeypatch.setattr(process, "call", call)
    assert run.main([*arguments, "--resume"]) == 0
    found = results.load(folder)
    assert found.about["done"] == ["125M", "350M"]
    # But for peaks, which another size may have seen higher.
    kept = [each if each.is_decode else replace(each, limit=0.0) for each in found.rows]
    first = [each if each.is_decode else replace(each, limit=0.0) for each in first]
    assert all(map(same, kept[: len(first)], first))
    assert {row.size for row in found.rows} == {"125M", "350M"}


def test_ranks_beside_one_process(quick, monkeypatch, capsys):
    """Of each size behind its rows; of one that is interrupted amid them nothing is kept."""
    folder, arguments = quick
    monkeypatch.setattr(run, "check_ranks", lambda ranks, threads: None)
    words = [*arguments, "--no-peers", "--ranks", "2", "--engines", "base3"]
    job = run._Run(command.make_console(180), run._parser().parse_args(words), words)
    monkeypatch.setattr(worker, "run", lambda task, advance: ([row(size="125M")], [], []))
    asked = []

    def interrupted(*_):
        raise KeyboardInterrupt

    def measured(task, count, rounds, *_):
        asked.append((task.size, tuple(task.layers), count, rounds))
        found = {"size": task.size, "engine": "base3", "test": "tg2", "threads": 1, "ranks": count}
        return [{**found, "alone": [0.5], "together": [0.25]}], ["one that was left out"]

    monkeypatch.setattr(ranks, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job._size("125M")
    assert (job._results.rows, job._about["done"]) == ([], [])
    monkeypatch.setattr(ranks, "run", measured)
    job._size("125M")
    about = results.load(folder).about
    assert asked == [("125M", ("base3",), 2, 4)]
    assert [(each["size"], each["ranks"]) for each in about["ranks"]] == [("125M", 2)]
    assert about["left_out"] == ["one that was left out"]
    assert about["options"]["ranks"] == 2
    output = capsys.readouterr().out
    assert "Several ranks" in output
    assert "2.00x" in output


@pytest.mark.slow
@pytest.mark.usefixtures("one_picture")
def test_a_worker_that_dies_costs_its_rows(quick, monkeypatch, capsys):
    """With the peers first; the others go on. One that dies all the same leaves no rows."""
    folder, arguments = quick
    monkeypatch.setitem(SIZES, "700M", SMALL)
    call, always = process.call, False

    def dies(module, request, advance):
        if request.get("peers") or (always and module == "bench.suites.run.worker"):
            raise process.WorkerError("exit code -11")
        return call(module, request, advance)

    monkeypatch.setattr(process, "call", dies)
    chosen = ["--sizes", "700M", "--engines", "fp16", "base3", "llama.cpp F16"]
    assert run.main([*arguments, *chosen]) == 0
    found = results.load(folder)
    assert {row.engine for row in found.rows} == {"fp16", "base3"}
    assert "700M/0: exit code -11" in found.about["left_out"]
    always = True
    assert run.main([*arguments, *chosen, "--force"]) == 1
    assert results.load(folder).rows == []
    assert "no size was measured" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failing_proof_is_one_line(quick, monkeypatch, capsys):
    """Of a tier whose process fails, for example."""
    _, arguments = quick
    monkeypatch.setattr(run.lossless, "prove", raises)
    assert run.main(arguments) == 1
    assert "failed: tier avx2 failed" in capsys.readouterr().out


#: Not this machine's architecture.
OTHER = {"x86": "arm", "arm": "x86"}[host_arch()]


def raises(*arguments):
    raise ValueError("tier avx2 failed: no output")


def one_line(capsys):
    """The line of an error, the last."""
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sizes", "12B"], "--sizes 12B: expected some of 125M"),
        (["--engines", "fp8"], "--engines fp8: expected some of fp16"),
        (["--threads", "0"], "threads=0"),
        (["--threads", "200"], "--threads 200"),
        (["--arch", OTHER, "--sizes", "12B"], "--sizes 12B: expected some of 125M"),
        (["--output", str(Path(__file__) / "below-a-file")], "--output"),
        (["--compare", "no-folder", "nor-this"], "no-folder"),
        (["--fail-if-slower", "5%"], "needs --compare"),
        (["--compare", ".", ".", "--fail-if-slower", "5"], "--fail-if-slower '5': expected a perc"),
        (["--quick", "--full"], "not allowed with"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    """Nothing is measured; the line names the argument."""
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    assert stop.value.code == 2
    assert words in one_line(capsys)


@pytest.mark.slow
def test_a_worker_of_its_own_process(tmp_path):
    """Its answer and its steps arrive; of one that fails the last line does."""
    steps = []
    task = Task("125M", 0, {"base3": 11}, (), (1,), 2, 1, False)
    rows, probes, left_out = worker.run(task, steps.append)
    assert [each.engine for each in rows] == ["base3"]
    assert left_out == []
    assert len(probes) == CONTENDERS
    assert "base3 weights" in steps
    with pytest.raises(process.WorkerError, match="KeyError: 'no such size'"):
        worker.run(replace(task, size="no such size"), steps.append)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def runs_in(group, process):
    """Whether it is of that group, and has not ended: a child of a child, which nobody waits for,
    stays in the list until the system looks."""
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.NoSuchProcess):
        return False


def test_ctrl_c_ends_the_workers(tmp_path):
    """Of a real run: it stops within seconds, and leaves no process behind."""
    command = [sys.executable, "-m", "bench.run", "--sizes", "700M", "--no-peers", "--output",
               str(tmp_path / "out")]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as it:
        assert it.stdout is not None
        it.stdout.readline()
        time.sleep(1)
        os.killpg(it.pid, signal.SIGINT)
        output = it.stdout.read()
        assert it.wait(timeout=60) == 130
    assert "interrupted" in output
    assert not [each for each in psutil.process_iter() if runs_in(it.pid, each)]
