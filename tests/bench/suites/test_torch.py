"""bench.torch: differences of pairs, rates, and what is drawn of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import matplotlib
import pytest

from bench.pages.plots import layers
from bench.suites.torch import command, sections

RUN = Path(command.__file__).parents[3] / "results" / "torch" / command.TORCH_FILE
PICTURE = RUN.parent / "torch.png"
#: Each version of Matplotlib draws a little differently.
DRAWN_BY = "3.11."


def test_what_one_takes_more_does_not_depend_on_noise(monkeypatch):
    """That both see: here a clock that is slower in every other pair."""
    now, calls = 0.0, 0

    def run(seconds):
        nonlocal now, calls
        now += seconds + (0.5 if calls // 2 % 2 else 0)
        calls += 1

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    added = sections._added(lambda: run(0.25), lambda: run(0.125), 1)
    assert added == pytest.approx(0.125)
    assert sections._added(lambda: run(0.125), lambda: run(0.25), 1) == pytest.approx(-0.125)


def test_a_rate_leaves_out_the_prompt(monkeypatch):
    now = 0.0

    def run(count, note):
        nonlocal now
        now += 7
        for at in range(count):
            now += 3 if at == 5 else 0.25  # something else has had the machine
            note()
        return list(range(count))

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert sections._rate(run, 12) == (4.0, list(range(13)))
    assert sections._agreeing([1, 2, 3, 4], [1, 2, 4, 4]) == 2


def test_the_committed_run_is_drawn(tmp_path):
    (tmp_path / command.TORCH_FILE).write_bytes(RUN.read_bytes())
    assert command.main(["--draw", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "torch.png").is_file()
    found = json.loads(RUN.read_text("utf-8"))
    assert layers.figure({**found, "raw": {}}) is None
    assert command.main(["--draw", "--output", str(tmp_path / "none")]) == 2


@pytest.mark.skipif(
    not matplotlib.__version__.startswith(DRAWN_BY),
    reason=f"Matplotlib {matplotlib.__version__} draws other pixels than {DRAWN_BY}x",
)
def test_the_committed_picture_is_of_the_committed_run(tmp_path):
    (tmp_path / command.TORCH_FILE).write_bytes(RUN.read_bytes())
    assert command.main(["--draw", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "torch.png").read_bytes() == PICTURE.read_bytes()
