"""Tuning: what wins is kept, what is not reached is left as it was, and nothing breaks by it."""

from __future__ import annotations

import errno
import math
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest

import ternops
from ternops.__main__ import main
from ternops.ahead import pool
from ternops.cost.rounds import Spread, memory_bytes
from ternops.encodings import ENCODINGS, TERNARY
from ternops.encodings.blocks import Blocks
from ternops.isa import detect
from ternops.kernels import plan as kernel_plan
from ternops.kernels import tiles, tuned
from ternops.tuning import plan, report, search
from tests.helpers import cases, internals, processes

ENCODING = next(name for name in TERNARY if isinstance(ENCODINGS[name], Blocks))
SHAPE = plan.Shape(64, 512)
SMALL = (
    plan.Subject("stream", (SHAPE,), first=2),
    plan.Subject("one", (SHAPE,), first=2, is_cached=True),
    plan.Subject("few", (SHAPE._replace(tokens=3),), first=2, all_threads_only=True),
    plan.Subject("many", (SHAPE._replace(tokens=300),), first=2, is_cached=True),
)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where a short tuning of one encoding writes."""
    path = tmp_path / "tuning.toml"
    monkeypatch.setenv(tuned.VARIABLE, str(path))
    monkeypatch.setattr(search, "memory_bytes", lambda: 1 << 25)
    monkeypatch.setattr(search, "tasks", lambda: [plan.Task(ENCODING, each) for each in SMALL])
    variants = plan.Task.variants
    monkeypatch.setattr(plan.Task, "variants", lambda task, best: variants(task, best)[:3])
    yield path
    monkeypatch.undo()
    tuned.forget()
    kernel_plan.forget_kernels()


@pytest.mark.slow
def test_from_end_to_end(file):
    """The file fits, says of every figure its spread, and its tiles multiply exactly."""
    told = []
    seconds = 1e4  # however slow the machine is, nothing is left out
    assert ternops.tune(seconds, lambda what, part: told.append((what, part))) == str(file)
    assert all(0 <= part <= 1 for _, part in told)
    # Nothing is compiled where all is there.
    assert {what.split(",")[0] for what, _ in told} - {"compiling"} == {ENCODING, "auto"}
    found = tuned.read(file)
    assert set(found.tiles) == {(ENCODING, subject.kind) for subject in SMALL}
    table = tomllib.loads(file.read_text("utf-8"))
    assert table["version"] == ternops.__version__
    assert table["left_out"] == []
    for subject in SMALL:
        entry = table[ENCODING][subject.kind]
        figures = [entry["gain"], *entry.get("shares", {}).values()]
        assert all(low <= median <= high for median, low, high in figures)
        tile = found.tiles[ENCODING, subject.kind]
        name = tiles.kernel_name(ENCODINGS[ENCODING], tile, detect.TIER)
        assert kernel_plan.KERNELS[ENCODING, subject.kind][1].name == name
    weights, x = cases.trits(70, 300, encoding=ENCODING), cases.activations(3, 300)
    expected = x.astype(np.int32) @ weights.T.astype(np.int32)
    assert cases.same_bits(x @ ternops.pack(weights, encoding=ENCODING).T, expected)


def test_what_time_is_too_short_for_keeps_its_default(file):
    """All of it, where there is none; the file fits all the same."""
    ternops.tune(seconds=0)
    table = tomllib.loads(file.read_text("utf-8"))
    assert table["left_out"] == [f"{ENCODING}.{subject.kind}" for subject in SMALL]
    assert tuned.read(file).tiles == {}


def test_a_tile_must_win_by_more_than_the_noise():
    """A median of 1%, and three quarters of the pairs."""
    assert search.wins(Spread(1.02, 1.001, 1.03))
    assert not search.wins(Spread(1.005, 1.001, 1.03))
    assert not search.wins(Spread(1.3, 0.99, 1.9))


def figures(**changes):
    """Of a tile that is not the default."""
    task = plan.Task(ENCODING, SMALL[0])
    other = next(tile for tile in task.first() if tile != task.default)
    all_ = {"task": task, "tile": other, "gain": Spread(1.1, 1.05, 1.2), "wins": True, "shares": {}}
    return report.Figures(**(all_ | changes))


def test_the_file_says_what_was_chosen(file):
    """The winner, or the default; odd names stay within their quotes."""
    shares = {'a "b"\n= ] # [': Spread(0.5, 0.25, 0.75)}
    for wins in (True, False):
        found = figures(wins=wins, shares=shares)
        report.write(file, [found], {}, 1.0, [])
        assert tuned.read(file).tiles == {(ENCODING, "stream"): found.used}
        assert (found.used == found.tile) == wins
        table = tomllib.loads(file.read_text("utf-8"))
        assert table[ENCODING]["stream"]["shares"] == {next(iter(shares)): [0.5, 0.25, 0.75]}


def test_auto_takes_what_gives_the_most_weights_a_second(monkeypatch):
    """By time a weight, not a byte; within the noise it stays the table's."""
    others = [name for name in TERNARY if isinstance(ENCODINGS[name], Blocks)]
    seconds = dict.fromkeys(others, 1.0)
    default = detect.TIER.auto[1]

    def settings(task, memory):
        class Setting:
            threads, weight_bytes = search.default_threads(), 8 / ENCODINGS[task.encoding].fields

            def trial(self, tile):
                return lambda: seconds[task.encoding] / self.weight_bytes

        return [Setting(), Setting()]

    monkeypatch.setattr(search, "_settings", settings)
    found = [
        figures(task=plan.Task(name, subject)) for name in others for subject in SMALL[:2]
    ]  # fmt: skip
    for name in others:
        for faster in (0.5, 0.995):
            seconds.update(dict.fromkeys(others, 1.0), **{name: faster})
            chosen, spreads = search.encodings(found, None)["streamed"]
            assert chosen == (name if faster < 0.9 else default)
            assert set(spreads) == set(others)


def jobs() -> list:
    """Of the candidates that a short tuning tries at first."""
    task = plan.Task(ENCODING, SMALL[0])
    return [kernel_plan.tiled(ENCODING, tile).multiply for tile in task.first()]


@pytest.mark.slow
def test_compiling_candidates(monkeypatch):
    """What a worker fails on is left out, or an error with its reason; the others are compiled."""
    for job in jobs():
        _ = job.address  # kept
    keys = [job.key for job in jobs()]
    told = []

    def compile_all(skips):
        told.clear()
        task = pool.Task("here", keys=(keys[0], "ternops.no.such", *keys[1:]))
        pool.compile_all([task], 1, lambda key, done, count: told.append(key), skips=skips)

    monkeypatch.setenv(tuned.VARIABLE, "/no/such/file")  # which is nothing to a worker
    monkeypatch.setattr(type(jobs()[0]), "is_there", False)
    pool.compile_missing(jobs(), lambda done, count: told.append((done, count)))
    assert told == [(number + 1, len(keys)) for number in range(len(keys))]
    monkeypatch.delenv(tuned.VARIABLE)
    compile_all(skips=True)
    assert told == keys
    with pytest.raises(RuntimeError, match="such"):
        compile_all(skips=False)
    assert told == keys[:1]


@pytest.mark.skipif(sys.platform == "win32", reason="the worker is a script of the shell")
@pytest.mark.parametrize("answers", ["", 'echo \'["a", "b"]\';', "exit 1"])
def test_a_deadline_ends_workers(monkeypatch, tmp_path, answers):
    """Whether they have started or not; nothing that was not in time counts, and none is left."""
    worker, pid = tmp_path / "worker", tmp_path / "pid"
    worker.write_text(f"#!/bin/sh\necho $$ > {pid}\n{answers}\nexec sleep 1000\n")
    worker.chmod(0o700)
    monkeypatch.setattr(pool.sys, "executable", str(worker))
    ended, wait = [], subprocess.Popen.wait
    monkeypatch.setattr(
        subprocess.Popen, "wait", lambda process: ended.append(process) or wait(process)
    )
    task = pool.Task("here", keys=("a", "b"))
    if "exit" in answers:
        with pytest.raises(RuntimeError, match="exit code 1"):
            pool.compile_all([task], 2, pytest.fail, skips=True)
        return
    until = time.monotonic() + 0.5
    pool.compile_all([task], 2, pytest.fail, until, skips=True)
    assert ended
    assert all(process.returncode is not None for process in ended)


def test_nothing_is_compiled_after_the_deadline(monkeypatch, tmp_path):
    """Beside one another, or here where nothing is kept; defaults are there all the same."""
    task = plan.Task(ENCODING, SMALL[0])
    wanted = {task: task.first()}
    monkeypatch.setattr(type(jobs()[0]), "is_there", False)
    compiled = []
    monkeypatch.setattr(pool, "compile_all", lambda *rest, **more: compiled.append(rest))
    for is_shared in (True, False):
        monkeypatch.setattr(search.kept, "is_shared", lambda value=is_shared: value)
        assert internals.candidates_in_time(wanted, 0.0) == {task: [task.default]}
    ((_, _, _, until),) = compiled
    assert until < math.inf


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    """The file is one of theirs, whole."""
    path = tmp_path / "tuning.toml"
    code = "import ternops; ternops.tune(seconds=0)"
    environment = processes.environment(TERNOPS_TUNING=str(path))
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [each.wait(timeout=120) for each in running] == [0, 0]
    assert tuned.read(path).tiles == {}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_is_full(file, monkeypatch):
    """An error when it is written, and what was there before stays, whole and alone."""
    report.write(file, [figures()], {}, 1.0, [])
    before = file.read_bytes()
    write = type(file).write_text

    def full(path, text, encoding):
        write(path, text[: len(text) // 2], encoding)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(type(file), "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        ternops.tune(seconds=0)
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert tuned.tuned().tiles == {(ENCODING, "stream"): figures().tile}


def test_a_folder_that_is_read_only(monkeypatch, file):
    """An error before anything is measured; products go on."""

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(search, "check_writable", refused)
    monkeypatch.setattr(search, "_searched", pytest.fail)
    with pytest.raises(PermissionError, match="Permission denied"):
        ternops.tune()
    monkeypatch.delenv(tuned.VARIABLE)
    tuned.forget()
    kernel_plan.forget_kernels()
    x, weights = cases.activations(1, 64), cases.trits(3, 64)
    expected = x.astype(np.int32) @ weights.T.astype(np.int32)
    assert cases.same_bits(x @ ternops.pack(weights).T, expected)


def test_no_place_for_the_file(monkeypatch, tmp_path):
    """One line, at once, and nothing is measured."""
    monkeypatch.setattr(search, "usual_path", lambda: None)
    monkeypatch.delenv(tuned.VARIABLE, raising=False)
    with pytest.raises(ValueError, match=r"^no folder to keep what is found in; TERNOPS_TUNING"):
        ternops.tune()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path / "file" / "tuning.toml"))
    with pytest.raises(OSError, match="file"):
        ternops.tune()


def test_the_command(monkeypatch, capfd):
    """Prints the path; with rich or without, something is said meanwhile."""

    def tune(announce):
        announce("compiling, 1 of 2", 0.1)
        announce("compiling, 2 of 2", 0.9)
        return "/a/path"

    monkeypatch.setattr("ternops.tuning.tune", tune)
    assert main(["tune"]) == 0
    found = capfd.readouterr()
    assert found.out == "/a/path\n"
    assert "tuning: 90%" in found.err
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["tune"]) == 0
    found = capfd.readouterr()
    assert (found.out, found.err) == ("/a/path\n", "ternops: tuning: compiling\n")


def test_the_memory_that_is_read():
    """Some of what is free, a whole number of parts."""
    size = memory_bytes()
    assert 1 << 26 <= size <= 1 << 30
    assert size % (1 << 24) == 0
