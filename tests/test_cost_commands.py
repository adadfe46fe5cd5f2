"""`python -m ternops predict` and `calibrate`: tables, pictures, and one line for what is wrong."""

import json

import pytest

from ternops.__main__ import main
from ternops.commands import predict as command
from ternops.cost import load, predict
from ternops.cost.layouts import SIZES
from ternops.decoder.formats.loading import TINY
from tests.test_cost_hardware import PROFILE


def run(capsys, *arguments):
    """What a successful command printed."""
    assert main(["predict", *arguments]) == 0
    return capsys.readouterr().out


def test_one_combination_has_its_parts(capsys):
    """The figures of the library, and a line for each part."""
    found = predict(SIZES["70B"], load("m2-ultra"), "base3")
    text = run(capsys, "--model", "70B", "--hardware", "m2-ultra", "--encoding", "base3")
    assert f"{found.ms_per_token:.4g}" in text
    for part in found.parts:
        assert part in text
    # No rate of the kernel was ever published.
    assert f"<= {found.tokens_per_second:.4g}" in text
    assert "at most" in text


def test_several_give_a_table(capsys):
    """Sizes by encodings by machines; what cannot run has a dash and a reason."""
    text = run(
        capsys, "--model", "700M", "100B", "--hardware", "generic", "epyc-7v13",
        "--encoding", "base3", "float16",
    )  # fmt: skip
    assert text.count("700M") == 4
    assert "100B, float16: " in text
    assert "memory: the model needs" in " ".join(text.split())


def test_a_file_and_a_checkpoint_are_taken(tmp_path, capsys):
    """A profile that calibrate wrote, a model that is on the disk."""
    from ternops.cost.hardware import save

    save(PROFILE, tmp_path / "mine.toml")
    text = run(capsys, "--model", str(TINY), "--hardware", str(tmp_path / "mine.toml"))
    assert "A machine" in text


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_plot_is_written_whole(tmp_path, capsys, kind):
    """Of one prediction or of several."""
    path = tmp_path / f"x.{kind}"
    text = run(capsys, "--model", "700M", "7B", "--hardware", "generic", "--plot", str(path))
    assert f"wrote {path}" in text
    assert path.stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "12B", "--hardware", "generic"], "--model '12B': expected a folder, a file"),
        (["--model", "7B", "--hardware", "m3"], "hardware 'm3': expected a TOML file or one of"),
        (["--model", "7B", "--hardware", "generic", "--encoding", "q4"], "encoding='q4'"),
        (["--model", "7B", "--hardware", "generic", "--threads", "99"], "threads=99"),
        (["--model", "7B", "--hardware", "generic", "--threads", "0"], "threads=0"),
        (["--model", "7B", "--hardware", "generic", "--context", "0"], "context=0"),
        (["--model", "7B", "--hardware", "generic", "--context", "4096"], "context=4096"),
        (["--model", "100B", "--hardware", "generic", "--encoding", "float16"], "needs 200"),
        (["--model", "7B", "--hardware", "generic", "--plot", "x.gif"], "--plot 'x.gif'"),
        (["--model", "7B", "7B", "--hardware", "i7-13700h", "--threads", "15"], "threads=15"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    """On stderr, exit code 2."""
    assert main(["predict", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_calibrate_writes_a_profile(tmp_path, monkeypatch, capsys):
    """To the file that is asked for, or one named after the CPU."""
    monkeypatch.setattr("ternops.cost.calibrate.calibrate", lambda threads, say: PROFILE)
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate"]) == 0
    assert main(["calibrate", "--output", "mine.toml"]) == 0
    assert load(tmp_path / "a-machine.toml").levels == load(tmp_path / "mine.toml").levels
    assert "wrote mine.toml" in capsys.readouterr().out


def test_calibrate_refuses_too_many_threads(capsys):
    """Before anything is measured."""
    assert main(["calibrate", "--threads", "200"]) == 2
    assert "--threads 200: expected at most" in capsys.readouterr().err


def test_labels_tell_rows_apart():
    """By what differs alone."""
    rows = [command._Row(size, "m", "base3", 1, None, "") for size in ("7B", "13B")]
    assert [command._label(row, rows) for row in rows] == ["7B", "13B"]
    assert json.dumps(command._label(rows[0], rows[:1])) == json.dumps("7B\nbase3")
