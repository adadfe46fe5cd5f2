"""Two runs side by side: what counts as slower, what is only said, and what can be read."""

from __future__ import annotations

from dataclasses import replace

import pyperf
import pytest
from rich.console import Console

from bench.core import results
from bench.core.errors import ResultsError
from bench.core.results import CYCLED, MEASURED, MODELLED, Results, Row
from bench.pages import compare

ABOUT = {"cpu": "A CPU", "arch": "x86", "tier": "avx2"}
#: Around 10 and around 11 milliseconds; the middle halves do not overlap.
TEN = (0.0099, 0.01, 0.01, 0.01, 0.0101)
ELEVEN = (0.0109, 0.011, 0.011, 0.011, 0.0111)
ROW = Row("700M", "base3", "tg32", 2, MEASURED, TEN)


def run(*rows, **about):
    return Results({**ABOUT, **about}, list(rows))


def text(table):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def line(table, word):
    """The only line of a table that has a word, as its words."""
    (found,) = (each for each in text(table).splitlines() if word in each)
    return [cell.strip() for cell in found.strip("│").split("│")]


@pytest.mark.parametrize(
    ("words", "share"),
    [("5%", 0.05), ("0%", 0), (" 2.5 % ", 0.025), ("99.9%", 0.999)],
)
def test_percentages(words, share):
    assert compare.parse_percent(words) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize(
    "words", ["5", "0.05", "-5%", "100%", "nan%", "1e1%", "\u0665%", "%", "", "5%%"]
)
def test_what_is_no_percentage(words):
    with pytest.raises(ValueError, match="expected a percentage") as caught:
        compare.parse_percent(words)
    assert "\n" not in str(caught.value)


def test_a_slower_row():
    old, new = run(ROW), run(replace(ROW, seconds=ELEVEN))
    table, failures = compare.compare(old, new, 0.05)
    assert line(table, "base3") == [
        "700M", "tg32", "base3", "2", "100.0", "0.0%", "90.9", "0.0%", "0.909x", "measured",
        "slower",
    ]  # fmt: skip
    assert failures == [
        "tg32 700M base3, 2 thread(s): 90.9 a second after 100.0, 9.1% slower, "
        "expected at most 5.00%"
    ]
    assert compare.compare(old, new, 0.1)[1] == []
    assert compare.compare(old, new, None)[1] == []


def test_a_faster_row():
    table, failures = compare.compare(run(replace(ROW, seconds=ELEVEN)), run(ROW), 0.0)
    assert line(table, "base3")[-3:] == ["1.100x", "measured", "faster"]
    assert failures == []


def test_scatter_is_no_difference():
    """The medians are as far apart as above."""
    wide = (0.008, 0.009, 0.011, 0.012, 0.013)
    table, failures = compare.compare(run(ROW), run(replace(ROW, seconds=wide)), 0.05)
    assert line(table, "base3")[-3:] == ["0.909x", "measured", "within scatter"]
    assert failures == []


@pytest.mark.parametrize(
    ("kinds", "verdict"),
    [
        ((MEASURED, CYCLED), "not of one kind"),
        ((MODELLED, MODELLED), "not timed"),
        ((CYCLED, CYCLED), "slower"),
    ],
)
def test_only_what_was_measured_fails(kinds, verdict):
    old, new = (
        replace(ROW, kind=kind, seconds=seconds, engine="tl1")
        for kind, seconds in zip(kinds, (TEN, ELEVEN), strict=True)
    )
    table, failures = compare.compare(run(ROW, old), run(ROW, new), 0.05)
    assert line(table, "tl1")[-2:] == ["/".join(dict.fromkeys(kinds)), verdict]
    assert failures == []


def test_few_values_tell_nothing():
    few = replace(ROW, seconds=ELEVEN[:2])
    table, failures = compare.compare(run(ROW), run(few), 0.05)
    assert line(table, "base3")[-1] == "too few values"
    assert failures == []


def test_rows_are_found_by_size_engine_test_and_threads():
    others = [
        replace(ROW, size="1B"), replace(ROW, engine="tl2"), replace(ROW, test="pp512"),
        replace(ROW, threads=1),
    ]  # fmt: skip
    table, failures = compare.compare(run(ROW), run(*others, ROW), None)
    assert text(table).count("only in new") == 4
    assert text(table).count("within scatter") == 1
    table, _ = compare.compare(run(*others, ROW), run(ROW), None)
    assert text(table).count("only in old") == 4
    assert line(table, "1B")[4:9] == ["100.0", "0.0%", "-", "-", "-"]
    assert failures == []


def test_nothing_in_common_does_not_pass():
    old, new = run(ROW), run(replace(ROW, test="tg16"))
    assert compare.compare(old, new, 0.05)[1] == ["no row was measured in both runs"]
    assert compare.compare(run(), run(), 0.05)[1] == ["no row was measured in both runs"]
    assert compare.compare(old, new, None)[1] == []


def test_other_machines_are_a_warning():
    assert "warning" not in text(compare.compare(run(ROW), run(ROW), None)[0])
    other = run(ROW, replace(ROW, threads=8), cpu="[red] CPU", tier="amx", arch=None)
    shown = text(compare.compare(run(ROW), other, None)[0])
    assert "warning: the runs differ in cpu: A CPU and [red] CPU" in shown
    assert "warning: the runs differ in tier: avx2 and amx" in shown
    assert "warning: the runs differ in threads: 2 and 2, 8" in shown
    assert "arch" not in shown  # which one of them does not tell


def plain(path, name="sum [bold]", unit="second", values=TEN, **metadata):
    metadata = {"name": name, "unit": unit, **metadata}
    once = pyperf.Run(values, metadata=metadata, collect_metadata=False)
    pyperf.BenchmarkSuite([pyperf.Benchmark([once])]).dump(str(path))
    return path


def test_a_folder_and_its_file_are_the_same(tmp_path):
    folder = tmp_path / "run"
    probe = {"name": "read", "ternops_probe": "1", "ternops_bytes": 9, "ternops_threads": 1}
    rows = run(ROW, replace(ROW, threads=1)).rows
    results.save(folder, Results(ABOUT, rows, [results.Probe(probe, TEN)]))
    read = compare.read(folder)
    assert read.rows == [ROW, replace(ROW, threads=1)]
    assert compare.read(folder / results.ROWS_FILE) == read
    assert read.about["tier"] == "avx2"
    (folder / results.RUN_FILE).unlink()
    assert compare.read(folder / results.ROWS_FILE).rows == read.rows


def test_plain_pyperf_files(tmp_path):
    old = compare.read(plain(tmp_path / "old.json", cpu_model_name="A CPU", ternops_threads=2))
    new = compare.read(plain(tmp_path / "new.json", values=ELEVEN, cpu_model_name="B CPU",
                             ternops_threads=2))  # fmt: skip
    table, failures = compare.compare(old, new, 0.05)
    assert "Runs a second" in text(table)
    assert line(table, "sum [bold]")[2:4] == ["sum [bold]", "2"]
    assert "cpu: A CPU and B CPU" in text(table)
    assert failures == [
        "sum [bold]: 90.9 a second after 100.0, 9.1% slower, expected at most 5.00%"
    ]


def test_what_cannot_be_read(tmp_path):
    """One line that names the file."""
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"benchmarks": [')
    rows = plain(tmp_path / "rows.json", ternops_size="7B")
    bytes_ = plain(tmp_path / "bytes.json", unit="byte")
    for path, words in ((damaged, "no complete pyperf file"), (rows, "ternops_engine"),
                        (bytes_, "is in byte, expected seconds")):  # fmt: skip
        with pytest.raises(ResultsError, match=words) as caught:
            compare.read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    for path in (tmp_path, tmp_path / "missing", tmp_path / "missing" / "decode.json"):
        with pytest.raises(OSError, match="No such file"):
            compare.read(path)
