"""Benchmarks tune first where no file fits, and say so."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import ternops
from bench.core import command
from ternops.kernels import tuned


@pytest.fixture
def said(tmp_path, monkeypatch):
    """A function: what is printed while tuning does something, with no file in the usual place."""
    monkeypatch.delenv(tuned.VARIABLE, raising=False)
    monkeypatch.setattr(tuned, "usual_path", lambda: tmp_path / "tuning.toml")

    def run(tune):
        tuned.forget()
        monkeypatch.setitem(vars(ternops), "tune", tune)
        console = Console(file=io.StringIO(), width=200)
        command.tune(console)
        return console.file.getvalue()

    yield run
    monkeypatch.undo()
    tuned.forget()


def test_a_machine_is_tuned_first(said):
    """With progress, and a line about what is used."""

    def tune(seconds, announce):
        announce("compiling, 1 of 2", 0.3)
        announce("auto", 1.0)

    lines = said(tune).splitlines()
    assert lines[-1] == "tuning: none (python -m ternops tune)"  # for this one wrote nothing
    assert "tuning, 90 s at most: 100%" in lines


def test_what_prevents_it_is_told(said):
    """And measuring goes on, with the tables' tiles."""

    def tune(seconds, announce):
        raise OSError(28, "No space left on device", "/a/path")

    found = said(tune)
    assert "not tuned: [Errno 28] No space left on device: '/a/path'\n" in found
    assert found.endswith("tuning: none (python -m ternops tune)\n")


def test_a_tuned_machine_is_left_alone(said, monkeypatch):
    """So is one where it is off."""

    def tune(seconds, announce):
        raise AssertionError("tuned once more")

    monkeypatch.setenv(tuned.VARIABLE, "off")
    assert said(tune) == "tuning: off (TERNOPS_TUNING)\n"
    monkeypatch.delenv(tuned.VARIABLE)
    head = "".join(f"{key} = {value!r}\n" for key, value in tuned.identity().items())
    tuned.usual_path().write_text(head, "utf-8")
    assert said(tune) == f"tuning: {tuned.usual_path()} of an unknown day\n"
