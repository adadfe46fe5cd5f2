"""`python -m ternops predict` and `calibrate`: tables, pictures, and one line for what is wrong."""

import sys

import pytest

from ternops.__main__ import main
from ternops.cost import load, predict
from ternops.cost.layouts import SIZES
from ternops.decoder.formats.loading import TINY
from tests.helpers import internals
from tests.helpers.profiles import PROFILE


def run(capsys, *arguments):
    """What a successful command printed."""
    assert main(["predict", *arguments]) == 0
    return capsys.readouterr().out


def _measured(threads, announce):
    pytest.fail("measured")


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
    """Sizes by encodings by machines; models that cannot run have a dash and a reason."""
    text = run(
        capsys, "--model", "700M", "100B", "--hardware", "generic", "epyc-7v13",
        "--encoding", "base3", "fp16",
    )  # fmt: skip
    assert text.count("700M") == 4
    assert "100B, fp16: " in text
    assert "memory: the model needs" in " ".join(text.split())


def test_a_file_and_a_checkpoint_are_taken(tmp_path, capsys):
    """A profile that calibrate wrote, a model that is on the disk."""
    from ternops.cost.profile import save

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
        (["--model", "7B", "--hardware", "generic", "--encoding", "q4"], "--encoding 'q4': "),
        (
            ["--model", "7B", "--hardware", "generic", "--encoding", "base3", "q4"],
            "--encoding 'q4': ",
        ),
        (["--model", "7B", "3B", "--hardware", "generic", "--batch", "0"], "batch=0: expected"),
        (["--model", "x" * 5000, "--hardware", "generic"], "--model 'xxx"),
        (["--model", "7B", "--hardware", "generic", "--plot", ""], "--plot '': expected"),
        (["--model", "7B", "--hardware", "generic", "--plot", "."], "--plot '.': expected"),
        (["--model", "7B", "--hardware", "generic", "--plot", "no/x.png"], "--plot 'no/x.png': No"),
        (["--model", "7B", "--hardware", "generic", "--plot", f"{'x' * 300}.png"], "too long"),
        (["--model", "7B", "--hardware", "generic", "--threads", "99"], "threads=99"),
        (["--model", "7B", "--hardware", "generic", "--threads", "0"], "threads=0"),
        (["--model", "7B", "--hardware", "generic", "--context", "0"], "context=0"),
        (["--model", "7B", "--hardware", "generic", "--context", "4096"], "context=4096"),
        (["--model", "100B", "--hardware", "generic", "--encoding", "fp16"], "needs 200"),
        (["--model", "7B", "--hardware", "generic", "--plot", "x.gif"], "--plot 'x.gif'"),
        (["--model", "7B", "7B", "--hardware", "i7-13700h", "--threads", "15"], "threads=15"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    """On stderr, exit code 2; nothing is printed that looks like a result."""
    assert main(["predict", *arguments]) == 2
    output = capsys.readouterr()
    lines = output.err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not output.out


def test_calibrate_writes_a_profile(tmp_path, monkeypatch, capsys):
    """To the file that is asked for, or one named after the CPU."""
    monkeypatch.setattr("ternops.cost.calibrate.calibrate", lambda threads, say: PROFILE)
    monkeypatch.setattr("ternops.cpu_caches.cpu_model", lambda: "A machine")
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate"]) == 0
    assert main(["calibrate", "--output", "mine.toml"]) == 0
    assert load(tmp_path / "a-machine.toml").levels == load(tmp_path / "mine.toml").levels
    assert "wrote mine.toml" in capsys.readouterr().out


def test_calibrate_refuses_too_many_threads(capsys):
    """Before anything is measured."""
    assert main(["calibrate", "--threads", "200"]) == 2
    assert "--threads 200: expected at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "words"),
    [("", "--output '': expected"), (".", "--output '.': expected"), ("no/x.toml", "No such")],
)
def test_calibrate_refuses_where_it_cannot_write(output, words, monkeypatch, capsys):
    """Before anything is measured."""
    monkeypatch.setattr("ternops.cost.calibrate.calibrate", _measured)
    assert main(["calibrate", "--output", output]) == 2
    assert words in capsys.readouterr().err


def test_the_folder_that_is_written_to_stays_clean(tmp_path, monkeypatch):
    """What a try to write made is gone; a picture's ending may be in capitals."""
    monkeypatch.chdir(tmp_path)
    arguments = ["predict", "--model", "7B", "--hardware", "generic", "--plot", "x.PNG"]
    assert main(arguments) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["x.PNG"]


@pytest.mark.parametrize("name", ["[/red]", "[red]m", ":smile:", "$x_{$ m$"])
def test_names_are_shown_as_they_are(name, tmp_path, capsys):
    """No markup of tables, no formulas in pictures."""
    from ternops.cost.profile import save

    save({**PROFILE, "name": name}, tmp_path / "mine.toml")
    common = ["--model", "700M", "--hardware", str(tmp_path / "mine.toml")]
    assert name in run(capsys, *common)
    picture = str(tmp_path / "x.svg")
    assert name in run(capsys, *common, "generic", "--plot", picture)


def test_no_digit_is_cut_off_in_a_pipe(capsys):
    """The table is as wide as it must be."""
    arguments = ["--model", "700M", "7B", "--hardware", "sapphire-rapids", "cobalt-100"]
    assert "…" not in run(capsys, *arguments)


@pytest.mark.parametrize(
    ("modules", "arguments"),
    [
        (["rich", "rich.console"], ["predict", "--model", "7B", "--hardware", "generic"]),
        (
            ["matplotlib", "matplotlib.figure"],
            ["predict", "--model", "7B", "--hardware", "generic", "--plot", "x.png"],
        ),
        (["tomli_w"], ["calibrate", "--output", "x.toml"]),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    modules, arguments, monkeypatch, capsys, tmp_path
):
    """Before anything is printed or measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ternops.cost.calibrate.calibrate", _measured)
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    assert main(arguments) == 2
    output = capsys.readouterr()
    expected = f"{modules[0]} is not installed: pip install 'ternops[cost]'"
    assert output.err == f"ternops: error: {expected}\n"
    assert not output.out


def test_labels_tell_rows_apart():
    """By what differs alone."""
    assert internals.bar_labels(("7B", "13B")) == ["7B", "13B"]
    assert internals.bar_labels(("7B",)) == ["7B\nbase3"]


def test_ranks_give_a_table_a_reason_and_where_they_saturate(capsys):
    """A row for each doubling and the number asked for."""
    text = run(
        capsys, "--model", "70B", "--hardware", "epyc-7v13", "--encoding", "two_bit",
        "--ranks", "12", "--link", "10GbE",
    )  # fmt: skip
    assert [f" {ranks} │" in text for ranks in (1, 2, 4, 8, 12)] == [True] * 5
    assert "\n12 rank(s): tp=12: " in text
    assert "\nsaturates " in text
    assert "tokens/s predicted over 10GbE" in text


def test_a_layout_that_is_asked_for(capsys):
    """Beside one rank."""
    text = run(
        capsys, "--model", "1T", "--hardware", "m2-ultra", "--encoding", "two_bit",
        "--ranks", "8", "--link", "1ms,1Gbit/s", "--layout", "tp=2,pp=4", "--batch", "4",
    )  # fmt: skip
    assert "tp=2,pp=4" in text
    assert "1 rank(s): " in text
    assert "memory: a rank of tp=1 needs" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--link", "IB"], "--link: expected --ranks with it"),
        (["--layout", "tp=2"], "--layout: expected --ranks with it"),
        (["--ranks", "0"], "--ranks 0: expected 1 to 4096"),
        (["--ranks", "2"], "--link: Apple M2 Ultra has none of its own, expected a link"),
        (["--ranks", "2", "--link", "wire"], "link 'wire': expected 1GbE"),
        (["--ranks", "2", "--link", "IB", "--layout", "tp=4"], "with 2 ranks in all"),
        (["--ranks", "2", "--link", "IB", "--phase", "prefill"], "expected --phase decode"),
        (["--ranks", "2", "--link", "IB", "--plot", "x.png"], "--ranks with --plot"),
        (["--ranks", "64", "--link", "shm"], "64 ranks over shm: Apple M2 Ultra has 24 cores"),
    ],
)
def test_wrong_ranks_are_one_line(arguments, words, capsys):
    rest = ["--model", "7B", "--hardware", "m2-ultra", *arguments]
    code = main(["predict", *rest])
    told = capsys.readouterr()
    assert words in " ".join((told.out + told.err).split())
    assert code == 2 or "64" in arguments


def test_calibrate_mpi_takes_no_threads(tmp_path, capsys):
    path = str(tmp_path / "x.toml")
    assert main(["calibrate", "--mpi", "--threads", "1", "--output", path]) == 2
    assert "--mpi with --threads: expected one of them" in capsys.readouterr().err
