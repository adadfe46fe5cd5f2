"""docs/ENCODINGS.md says what committed results say, of every encoding and method."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.core.envelope import save_json
from bench.core.kernels import Limit, Product, describe
from bench.core.measure import Case
from bench.core.pyperf_files import save_suite
from bench.core.results import KERNELS_FILE, SCALING_FILE, SCALING_FORMAT
from bench.pages import encodings
from bench.pages.encodings import ENTRIES
from bench.suites.kernels import cases as kernel_cases
from bench.suites.kernels import sections
from bench.suites.scaling import rounding
from ternops.encodings import ENCODINGS
from ternops.quantizers import METHODS, fp8

ROOT = Path(__file__).parents[3]
IDS = [f"{each.error}, {each.speed}" for each in ENTRIES]


def test_every_encoding_and_every_method_has_a_row():
    """absmax, which takes any levels, has those of int3, int4 and int8."""
    assert {each.asked["encoding"] for each in ENTRIES} == {*ENCODINGS, fp8.ENCODING}
    assert {each.method for each in ENTRIES} == {*METHODS, *fp8.FORMATS} - {"absmax"}
    assert {each.error for each in ENTRIES} == set(rounding.DATA_TYPES)
    assert len({each.call for each in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
def test_a_row_is_of_one_thing(entry):
    """What bench.scaling rounds, what bench.kernels multiplies and what is asked for agree."""
    kind = rounding.DATA_TYPES[entry.error]
    assert entry.method == kind.method
    assert entry.asked.get("levels") == kind.levels or entry.method == "lsq"
    assert entry.group in kind.groups
    measured = {
        kernel_cases.name_of(*kind)
        for kind in (*sections.LEVELS, *((n, 0) for n in ("tl1", "tl2")))
    }
    assert entry.speed in measured
    assert entry.speed.partition("/")[0].partition(" ")[0] in (
        entry.asked["encoding"], entry.asked.get("method")
    )  # fmt: skip
    scale = 32 / 4096 if entry.group == "row" else 16 / entry.group
    stored = 5 / 3 if entry.speed == "tl2" else 2 if entry.speed in ("tl1", "two_bit/128") else None
    assert entry.bits() == pytest.approx((stored or kind.bits) + scale, abs=0.02)


def product(encoding, seconds, section="low-bit", **changed):
    fields = {
        "section": section, "group": "g", "engine": "ternops", "tokens": 1, "rows": 1000,
        "columns": 1000, "threads": 2, "bytes": 500_000, "tier": "t", "encoding": encoding,
        "level": "DRAM", **changed,
    }  # fmt: skip
    return describe(Case("", str, values=[seconds] * 3), Product(**fields))


def written(tmp_path, *cases):
    rows = [
        {"size": size, "parameters": 5000, "name": name, "group": group, "perplexity": perplexity}
        for size, name, group, perplexity in (
            ("s", "float16", None, 9.0), ("s", "int4", 128, 9.9),
            ("l", "float16", None, 2.0), ("l", "int4", 128, 3.0), ("l", "mxfp4", 32, 2.5),
        )
    ]  # fmt: skip
    save_json(tmp_path / SCALING_FILE, {"format": SCALING_FORMAT, "rows": rows})
    save_suite(tmp_path / KERNELS_FILE, [*cases])
    return encodings.write(tmp_path, tmp_path / "PAGE.md")


def test_every_figure_is_that_of_the_results(monkeypatch, tmp_path):
    """Of the largest model, of all threads and one token; a dash for what was not measured."""
    monkeypatch.setattr(encodings.Entry, "bits", lambda self: 4.126)
    limit = Limit("low-bit", "g", "DRAM", "how", 2, 1_000_000, "t")
    page = written(
        tmp_path,
        product("nibble/128", 0.001), product("nibble/128", 0.1, threads=1),
        product("nibble/128", 0.2, tokens=512),
        describe(Case("", str, values=[0.001] * 3), limit),
    )  # fmt: skip
    lines = page.read_text("utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith("| -8 to 7 | "))
    assert "| 4.13 | 3.000 | +50.0% | 0.5 | 50% | 1.0 | absmax quantisation, " in row
    (row,) = (line for line in lines if line.startswith("| E2M1 times a power of two |"))
    assert "| 4.13 | 2.500 | +25.0% | 0.5 | 50% | 1.0 | OCP Microscaling" in row
    (row,) = (line for line in lines if line.startswith("| signs |"))
    assert "| 4.13 | - | - | - | - | - | Wang et al., BitNet" in row
    assert any("float16 has 2.000" in line for line in lines)


def test_nothing_to_write_is_one_line(tmp_path, capsys):
    """No results, and none of one token."""
    assert encodings.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(encodings.ResultsError, match="no product of one token"):
        written(tmp_path, product("nibble/128", 1, tokens=512))


@pytest.mark.slow
def test_the_committed_page_is_that_of_the_committed_results(monkeypatch, tmp_path):
    """Written anew it has the same bytes."""
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "ENCODINGS.md").read_text("utf-8")
    folder = Path(page.partition("`python -m bench.encodings ")[2].partition("`")[0])
    assert encodings.write(folder, tmp_path / "PAGE.md").read_text("utf-8") == page
