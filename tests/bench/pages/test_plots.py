"""The pictures of a run: that they show what the rows say, and what happens to bad results."""

import dataclasses
import json
import locale
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bench.core.measure import Case
from bench.core.pyperf_files import save_suite
from bench.core.results import CYCLED, FP16, KINDS, MEASURED, MODELLED, Results
from bench.pages import plot
from bench.pages.plots import energy, peers, share, speedup, style, threads
from bench.published import paper
from tests.bench import run_results
from tests.bench.run_results import made_up, written
from tests.helpers.processes import run_program

SIZES = ("350M", "700M", "30B", "100B")


@pytest.fixture(autouse=True)
def _styled():
    with style.applied():
        yield


@pytest.fixture
def speedup_alone(monkeypatch):
    """Of the pictures that need no kernels.json only one is drawn: each takes a second."""
    monkeypatch.setattr(plot, "PICTURES", {"speedup": speedup})


def row_of(results, size, engine, count=2, test="tg32"):
    (row,) = results.find(size=size, engine=engine, threads=count, test=test)
    return row


def texts(figure):
    """All words of a figure's head and legend."""
    legend = [each.get_text() for each in figure.legends for each in each.get_texts()]
    return "\n".join([each.get_text() for each in figure.texts] + legend)


def bars_of(axes):
    """colour -> its bars, from left to right."""
    found = {}
    for patch in axes.patches:
        if len(patch.get_path().vertices) == 5 and patch.get_height() > 0 and patch.get_zorder():
            found.setdefault(to_hex(patch.get_facecolor()).upper(), []).append(patch)
    return found


def test_bars_are_the_ratios_of_the_rows():
    """Ours, and the paper's where it has one; the bars say so in words, too."""
    results = made_up(SIZES)
    (axes,) = speedup.draw(results).axes
    bars = bars_of(axes)
    for encoding in run_results.ENCODINGS:
        heights = [bar.get_height() for bar in bars[style.colour(encoding)]]
        rows = [(row_of(results, s, encoding), row_of(results, s, FP16)) for s in SIZES]
        assert heights == pytest.approx([row.over(base).median for row, base in rows])
    published = [bar.get_height() for bar in bars[style.PAPER]]
    assert published == pytest.approx([paper.speedup("x86", s) for s in ("350M", "700M")])
    written = {text.get_text() for text in axes.texts}
    assert f"{published[0]:.1f}" in written
    assert f"{bars[style.colour('base3')][0].get_height():.1f}" in written


def test_limits_and_quartiles_are_those_of_the_rows():
    results = made_up(["350M"])
    (axes,) = speedup.draw(results).axes
    base = row_of(results, "350M", FP16)
    lines = [each for each in axes.collections if isinstance(each, LineCollection)]
    heights = {round(line.get_segments()[0][0][1], 9) for line in lines}
    for encoding in run_results.ENCODINGS:
        row = row_of(results, "350M", encoding)
        assert round(base.bytes_per_token / row.bytes_per_token, 9) in heights
    ends = [tuple(each.get_segments()[0][:, 1]) for container in axes.containers
            if hasattr(container, "has_yerr") for each in container[2]]  # fmt: skip
    assert any(
        ends == pytest.approx(row_of(results, "350M", "tl1").over(base)[1:]) for ends in ends
    )


def test_what_was_not_measured_whole_is_hatched_and_named():
    """Its own kind and that of the fp16 row, each with a hatch of its own."""
    figure = speedup.draw(made_up(SIZES))
    hatches = [bar.get_hatch() or "" for bar in bars_of(figure.axes[0])[style.colour("base3")]]
    assert [(("/" in each), ("\\" in each)) for each in hatches] == [
        (False, False), (False, False), (False, True), (True, True),
    ]  # fmt: skip
    assert "cycled" in texts(figure)
    assert "modelled" in texts(figure)
    figure = speedup.draw(made_up(["350M", "700M"]))
    assert not any(bar.get_hatch() for bars in bars_of(figure.axes[0]).values() for bar in bars)
    assert "atched" not in texts(figure)
    assert "modelled" not in texts(figure)


def test_many_sizes_leave_encodings_to_the_tables_and_say_so():
    figure = speedup.draw(made_up())
    assert "tl1, tl2: in the tables only" in texts(figure)
    assert style.colour("tl1").upper() not in bars_of(figure.axes[0])
    sizes = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert sizes == made_up().sizes
    assert "tables" not in texts(speedup.draw(made_up(SIZES)))


def test_rows_that_are_missing_leave_gaps_only():
    """An encoding without fp16 beside it has no bar; fp16 alone makes no picture."""
    results = made_up(SIZES)
    results.rows = [r for r in results.rows if (r.size, r.engine) != ("700M", FP16)]
    axes = speedup.draw(results).axes[0]
    assert (
        "700M" not in {label.get_text() for label in axes.get_xticklabels()}
        or len(bars_of(axes)[style.colour("base3")]) == len(SIZES) - 1
    )
    results.rows = results.find(engine=FP16)
    assert speedup.draw(results) is None


def test_threads_show_the_speed_at_each_count():
    results = made_up(threads=(1, 2, 4))
    figure = threads.draw(results)
    assert [axes.get_title("left") for axes in figure.axes] == ["125M", "1.5B", "7B", "100B"]
    assert "4 of 14 sizes" in texts(figure)
    axes = figure.axes[0]
    expected = [row_of(results, "125M", "base3", count).speed for count in (1, 2, 4)]
    lines = [tuple(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 3]
    assert tuple(expected) in lines
    first = row_of(results, "125M", FP16, 1).speed
    assert any(
        list(line.get_xdata()) == [1, 4] and line.get_ydata() == pytest.approx([first, 4 * first])
        for line in axes.lines
    )
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert threads.draw(made_up(threads=(2,))) is None


def test_shares_are_dots_below_a_line_at_all_of_it():
    results = made_up(["700M", "100B"])
    upper, lower = share.draw(results).axes
    points = [
        (float(line.get_ydata()[0]), to_hex(line.get_markerfacecolor()).upper())
        for line in upper.lines
        if len(line.get_xdata()) == 1
    ]
    assert len(points) == 9 + 5
    assert (row_of(results, "700M", "two_bit").share, style.colour("two_bit")) in points
    row = row_of(results, "100B", "two_bit")
    assert row.kind == CYCLED
    assert (row.share, "#FFFFFF") in points
    assert any(list(line.get_ydata()) == [1, 1] for line in upper.lines)
    assert upper.get_ylim()[0] < min(points)[0]
    rows = [row for row in results.find(test="pp512", threads=2) if row.share > 0]
    assert len([line for line in lower.lines if len(line.get_xdata()) == 1]) == len(rows) == 9


def test_energy_is_drawn_beside_the_papers():
    results = made_up(["350M", "700M", "7B"])
    figure = energy.draw(results)
    points = [
        (float(line.get_ydata()[0]), line.get_marker(), to_hex(line.get_markerfacecolor()))
        for line in figure.axes[0].lines
        if len(line.get_xdata()) == 1 and line.get_marker() != "None"
    ]
    stars = sorted(value for value, marker, _ in points if marker == "*")
    assert stars == [0.384, 1.367, 2.017, 11.305]
    row = row_of(results, "700M", "base3")
    assert row.energy == "measured"
    assert (row.joules, "D", style.colour("base3").lower()) in points
    row = row_of(results, "350M", "base3")
    assert (row.joules, "D", "#ffffff") in points
    assert "modelled energy" in texts(figure)
    assert "measured energy" in texts(figure)
    assert "i7-13700H" in texts(figure)


def test_energies_of_the_paper_save_what_it_says():
    for arch, size, saved in (
        ("x86", "700M", 0.719), ("x86", "7B", 0.822), ("arm", "700M", 0.554), ("arm", "70B", 0.70),
    ):  # fmt: skip
        row = paper.ENERGY[arch][size]
        assert 1 - row.ternary / row.fp16 == pytest.approx(saved, abs=6e-4)


def test_peers_are_bars_with_their_values():
    results = made_up(["350M", "700M"])
    figure = peers.draw(results)
    assert [axes.get_title("left") for axes in figure.axes] == [
        "700M, generating tokens (tg32)", "700M, reading a prompt (pp512)",
    ]  # fmt: skip
    for axes, test in zip(figure.axes, ("tg32", "pp512"), strict=True):
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        widths = {names[round(p.get_y() + p.get_height() / 2)]: p.get_width() for p in axes.patches}
        assert len(widths) == 9
        row = row_of(results, "700M", "llama.cpp TQ2_0", test=test)
        assert widths["llama.cpp TQ2_0"] == pytest.approx(row.speed)
        row = row_of(results, "700M", "base3", test=test)
        assert widths["ternops base3"] == pytest.approx(row.speed)
        assert any(text.get_text() == peers.brief(row.speed) for text in axes.texts)
    assert peers.draw(made_up(["350M"])) is None


def test_a_modelled_row_beside_peers_is_hatched():
    results = made_up(["700M"])
    results.rows = [
        dataclasses.replace(row, kind=MODELLED) if row.engine == FP16 else row
        for row in results.rows
    ]
    figure = peers.draw(results)
    hatched = [p for axes in figure.axes for p in axes.patches if p.get_hatch()]
    assert len(hatched) == 2
    assert "modelled" in texts(figure)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_looks_different(kind):
    others = [each for each in KINDS if each != kind]
    assert all(style.bar("w", kind)["hatch"] != style.bar("w", each)["hatch"] for each in others)
    face = style.points(FP16, kind)["markerfacecolor"]
    assert (face == "white") == (kind != MEASURED)


@pytest.mark.slow
def test_everything_is_written_twice_with_the_same_bytes(tmp_path, capsys, monkeypatch):
    """Whatever the user's own settings of matplotlib; and no older picture stays."""
    written(tmp_path, made_up(["700M", "30B"]))
    assert plot.main([str(tmp_path)]) == 0
    names = ["energy", "peers", "share", "speedup", "threads"]
    pictures = sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    assert sorted(each.name for each in tmp_path.glob("*.[ps]*g")) == pictures
    assert capsys.readouterr().out.count("\n") == len(pictures)
    first = {name: (tmp_path / name).read_bytes() for name in pictures}
    assert first["speedup.png"].startswith(b"\x89PNG")
    assert b"matplotlib" not in first["speedup.png"].lower()
    assert b"Matplotlib v" not in first["speedup.svg"]
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 23)
    plot.draw(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in pictures} == first

    written(tmp_path, made_up(["700M"], peers=False, joules=False))
    notes = []
    plot.draw(tmp_path, notes.append)
    assert [note.partition(":")[0] for note in notes] == ["energy", "peers"]
    assert not list(tmp_path.glob("energy.*")) + list(tmp_path.glob("peers.*"))


@pytest.mark.slow
def test_names_of_engines_and_cpus_are_only_words(tmp_path):
    """No formulas, no markup, none too many: an engine that nobody knows is drawn, too."""
    results = made_up(["700M"])
    results.about |= {"cpu": r"A $\nothing$ <b> & --> CPU", "arch": "riscv"}
    rows = [dataclasses.replace(r, engine="else $x") for r in results.find(engine="base3")]
    results.rows += rows
    paths = plot.draw(written(tmp_path, results))
    assert len(paths) == 10
    assert r"$\nothing$" in texts(speedup.draw(results))


@pytest.mark.slow
def test_pictures_need_no_display_and_no_decimal_points(tmp_path):
    """A process whose locale writes 1,5 and that has no display, and pyplot is never loaded."""
    results = made_up(["3B"])
    # Speed-ups of one: the axis has ticks between whole numbers.
    results.rows = [dataclasses.replace(r, seconds=(1.0,), bytes_per_token=0) for r in results.rows]
    written(tmp_path, results)
    comma = next((name for name in ("de_DE.UTF-8", "fr_FR.UTF-8") if _has(name)), "")
    run_program("foreign_locale", str(tmp_path), *([comma] if comma else []))
    pictures = sorted(tmp_path.glob("*.svg"))
    foreign = [each.read_bytes() for each in pictures]
    assert b"<!-- 0.2 -->" in (tmp_path / "speedup.svg").read_bytes()
    plot.draw(tmp_path)
    assert [each.read_bytes() for each in pictures] == foreign


def _has(name):
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_ALL, before)
    return True


def _cut(folder, name, keep):
    text = (folder / name).read_bytes()
    (folder / name).write_bytes(text[: int(len(text) * keep)])


def _changed(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


SPOILT = {
    "no folder": (lambda folder: None, "No such file"),
    "half a suite": (lambda folder: _cut(folder, "decode.json", 0.5), "not complete"),
    "half of run.json": (lambda folder: _cut(folder, "run.json", 0.5), "not complete"),
    "an empty suite": (lambda folder: _cut(folder, "decode.json", 0), "not complete"),
    "another format": (lambda folder: _changed(folder, "run.json", format=1), "format 1"),
    "no object": (lambda folder: (folder / "run.json").write_text("[]"), "format None"),
    "no suite": (lambda folder: _changed(folder, "decode.json", benchmarks=3), "not complete"),
    "half of kernels": (lambda f: (f / "kernels.json").write_text("{"), "kernels.json"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("speedup_alone")
@pytest.mark.parametrize("name", SPOILT)
def test_bad_results_are_one_line(name, tmp_path, capsys):
    spoil, words = SPOILT[name]
    if name != "no folder":
        written(tmp_path / "run", made_up(["700M"]))
    spoil(tmp_path / "run")
    assert plot.main([str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
    assert str(tmp_path) in error


@pytest.mark.slow
@pytest.mark.usefixtures("speedup_alone")
def test_kernels_without_a_roof_cost_the_roofline_alone(tmp_path, capsys):
    written(tmp_path, made_up(["700M"]))
    case = Case("a probe", lambda: None, 1, values=[1.0])
    save_suite(tmp_path / "kernels.json", [case])
    assert plot.main([str(tmp_path)]) == 0
    assert "roofline: not drawn, no limit was measured\n" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*g")) == ["speedup.png", "speedup.svg"]


def test_results_without_rows_are_one_line(tmp_path, capsys):
    written(tmp_path, Results(dict(run_results.ABOUT)))
    assert plot.main([str(tmp_path)]) == 2
    assert "no rows" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("speedup_alone")
def test_what_cannot_be_written_leaves_the_old_picture(tmp_path, monkeypatch, capsys):
    written(tmp_path, made_up(["700M"]))
    plot.draw(tmp_path)
    before = (tmp_path / "speedup.png").read_bytes()

    def fail(*arguments, **keywords):
        raise OSError(28, "No space left on device", "speedup.png")

    monkeypatch.setattr(Figure, "savefig", fail)
    assert plot.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == "bench.plot: speedup.png: No space left on device\n"
    assert (tmp_path / "speedup.png").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_one_value_and_large_ones_are_drawn():
    """A row of one round, a share above 1, a speed-up below 1."""
    results = made_up(["700M"])
    results.rows = [
        dataclasses.replace(row, seconds=(row.seconds[0] / 2,), joules=math.nan)
        for row in results.rows
    ]
    (axes, _) = share.draw(results).axes
    assert axes.get_ylim()[1] > max(row.share for row in results.find(threads=2, test="tg32"))
    assert speedup.draw(results) is not None
    assert peers.draw(results) is not None
    assert energy.draw(results) is None
    assert np.isfinite(axes.get_ylim()).all()
