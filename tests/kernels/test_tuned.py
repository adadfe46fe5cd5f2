"""Files of tuned tiles: what fits is used, and whatever else one holds is a line and no more."""

from __future__ import annotations

import os
import tomllib

import numpy as np
import pytest

import ternops
from ternops.encodings import ENCODINGS, TERNARY
from ternops.encodings.blocks import Blocks
from ternops.isa import detect
from ternops.kernels import gemm, plan, tiles, tuned, tuning
from ternops.kernels.reference import matmul_int32
from tests.helpers import cases, processes

ENCODING = next(name for name in TERNARY if isinstance(ENCODINGS[name], Blocks))
DEFAULT = tiles.default_tile(ENCODINGS[ENCODING], "stream", detect.TIER, detect.FAMILY)
OTHER = next(
    tile for tile in tiles.candidates(ENCODING, "stream", detect.TIER) if tile[:3] != DEFAULT[:3]
)


MANY = tiles.MANY
GEMM = detect.TIER.gemm
OTHER_GEMM = next(
    tile for tile in tiles.candidates(ENCODING, MANY, detect.TIER)
    if tile.panel_rows != GEMM.panel_rows and tile.block_bytes != GEMM.block_bytes
)  # fmt: skip


def line(tile: tiles.Tile, **changes: str) -> str:
    """Its entry in a file."""
    values = {key: str(value).lower() for key, value in tile._asdict().items()} | changes
    return f"tile = {{ {', '.join(f'{key} = {value}' for key, value in values.items())} }}\n"


def text(**changes: str) -> str:
    """A file that fits, but for some lines."""
    lines = {key: f"{value!r}" for key, value in tuned.identity().items()} | {
        "date": "'2026-01-01'", **{key: line for key, line in changes.items() if key != "more"},
    }  # fmt: skip
    head = "".join(f"{key} = {line}\n" for key, line in lines.items())
    return head + changes.get("more", f"[{ENCODING}.stream]\n{line(OTHER)}")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The usual place of the file, which is not there yet."""
    path = tmp_path / "tuning.toml"
    monkeypatch.delenv(tuned.VARIABLE, raising=False)
    monkeypatch.setattr(tuned, "usual_path", lambda: path)
    for forget in (tuned.forget, plan.forget_kernels):
        forget()
    yield path
    monkeypatch.undo()
    for forget in (tuned.forget, plan.forget_kernels):
        forget()


def kernel_used() -> str:
    """The name of the kernel for weights from memory."""
    _, multiply = plan.KERNELS[ENCODING, "stream"]
    return multiply.name


def test_what_was_found_is_used(place):
    """The tile and the encodings; a product has the same bits."""
    last = TERNARY[-1]
    place.write_text(text() + f"[auto]\ncached = '{last}'\nstreamed = '{TERNARY[0]}'\n", "utf-8")
    assert kernel_used() == tiles.kernel_name(ENCODINGS[ENCODING], OTHER, detect.TIER)
    assert tuning.auto() == (last, TERNARY[0])
    assert not tuning.is_slow(last)
    assert ternops.pack(cases.trits(3, 5)).encoding == last
    assert tuned.state() == f"{place} of 2026-01-01"
    weights, x = cases.trits(130, 641, encoding=ENCODING), cases.activations(1, 641)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ternops.kernels.call.kind_of", lambda *_: "stream")
        found = x @ ternops.pack(weights, encoding=ENCODING).T
    assert cases.same_bits(found, matmul_int32(x, weights))


@pytest.mark.parametrize(
    "encoding",
    [
        pytest.param(name, marks=[] if name in (ENCODING, "tl1") else pytest.mark.tiers)
        for name, each in ENCODINGS.items()
        if tiles.kinds_of(each)
    ],
)
def test_what_was_found_for_many_tokens_is_used(place, encoding):
    """By every encoding: the panel and the block of tokens, and memory for them; the same bits."""
    tokens, rows, columns = 300, 2 * OTHER_GEMM.panel_rows + 3, 1024
    weights, x = cases.trits(rows, columns, encoding=encoding), cases.activations(tokens, columns)
    before = plan.make_plan(encoding, columns, MANY)
    matrix = ternops.pack(weights, encoding=encoding)
    expected = matmul_int32(x, weights)
    assert cases.same_bits(x @ matrix.T, expected)
    place.write_text(text(more=f"[{encoding}.{MANY}]\n{line(OTHER_GEMM)}"), "utf-8")
    tuned.forget()
    # A plan is that of its kernels, whatever file there is by now.
    assert plan.make_plan(encoding, columns, MANY) == before
    plan.forget_kernels()
    found = plan.make_plan(encoding, columns, MANY)
    _, kernel = plan.KERNELS[encoding, MANY]
    assert kernel.name == f"gemm_{encoding}_{OTHER_GEMM}"
    assert (found.row_step, found.multiply) == (OTHER_GEMM.panel_rows, kernel.address)
    assert found.token_block != before.token_block
    assert found.scratch_bytes > gemm.panel_bytes(OTHER_GEMM)
    assert cases.same_bits(x @ ternops.pack(weights, encoding=encoding).T, expected)
    assert cases.same_bits(x @ matrix.T, expected)  # as it was packed


def test_without_a_file_tiles_are_the_tables(place):
    """And `info` says how to get one."""
    assert kernel_used() == tiles.kernel_name(ENCODINGS[ENCODING], DEFAULT, detect.TIER)
    assert tuning.auto() == detect.TIER.auto
    assert tuned.state() == ternops.info()["tuning"] == "none (python -m ternops tune)"


#: What a file may hold -> a part of the line about it.
BAD = {
    "empty": ("", "is of cpu None"),
    "half": (text()[:-30], "no TOML"),
    "other cpu": (text(cpu="'another'"), "is of cpu 'another', this is"),
    "a number for the cpu": (text(cpu="7"), "is of cpu 7"),
    "other tier": (text(tier="'amx2'"), "is of tier 'amx2'"),
    "other sources": (text(sources="'0123'"), "is of sources '0123'"),
    "not UTF-8": ("\udcff", "not UTF-8"),
    "deep": ("x = " + "[" * 50_000, "no TOML"),
    "long number": ("x = " + "9" * 50_000, "no TOML"),
    "large": (text() + "#" * tuned.MAX_BYTES, "expected at most"),
    "unknown class": (text(more=f"[{ENCODING}.most]\ntile = 3\n"), "expected one of one, stream"),
    "a name of 1000": (text(more=f"[{ENCODING}.{'x' * 1000}]\n"), "expected one of one, stream"),
    "no tile": (text(more=f"[{ENCODING}.one]\n"), "tile = None is none of the candidates"),
    "a list": (text(more=f"[[{ENCODING}]]\n"), "expected a table"),
    "text": (text(more=f"{ENCODING} = 'x'\n"), "expected a table"),
    "auto of nothing": (text(more="[auto]\n"), "auto.cached = None: expected"),
    "auto of a number": (
        text(more=f"[auto]\ncached = '{ENCODING}'\nstreamed = 1\n"), "auto.streamed = 1: expected"
    ),
    "auto of signs": (
        text(more="[auto]\ncached = 'one_bit'\nstreamed = 'one_bit'\n"), "auto.cached = 'one_bit'"
    ),
    "auto of a list": (text(more="[auto]\ncached = [[1]]\nstreamed = {}\n"), "auto.cached = [[1]]"),
}  # fmt: skip
for _rows in ("5", "-4", "1e308", "true", "'4'", "9223372036854775808", "nan", "[4]"):
    _tile = f"tile = {{ rows = {_rows}, apart = 4, is_narrow = false, ahead = 2048 }}\n"
    BAD[f"rows {_rows}"] = (text(more=f"[{ENCODING}.stream]\n{_tile}"), "none of the candidates")
for _key, _value in (
    ("panel_rows", "4096"), ("panel_rows", "0"), ("depth", "1099511627776"), ("depth", "-64"),
    ("block_bytes", "0"), ("block_bytes", "-1"), ("block_bytes", "1e300"), ("rows", "17"),
    ("tokens", "true"),
):  # fmt: skip
    _entry = f"[{ENCODING}.{MANY}]\n{line(GEMM, **{_key: _value})}"
    BAD[f"many: {_key} {_value}"] = (text(more=_entry), "none of the candidates")
for _name, _record in ENCODINGS.items():
    if not isinstance(_record, Blocks):  # which has tiles for many tokens only, or none
        _entry = f"[{_name}.stream]\n{line(OTHER)}"
        _words = "expected one of many" if tiles.kinds_of(_record) else "has no tiles"
        BAD[f"{_name} from memory"] = (text(more=_entry), _words)
# What equals a candidate in Python, and is of another type.
BAD["a flag as a number"] = (text().replace("false", "0").replace("true", "1"), "none of the")
BAD["rows as a float"] = (
    text().replace(f"rows = {OTHER.rows}", f"rows = {OTHER.rows}.0"),
    "none of",
)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_does_not_fit_is_ignored_as_a_whole(place, monkeypatch, name):
    """In the usual place with a line in `info`; named by the variable it is an error of one."""
    data, words = BAD[name]
    place.write_bytes(data.encode("utf-8", "surrogateescape"))
    assert tuned.tuned() == tuned.Tuned()
    assert words in tuned.state()
    assert tuned.state().startswith(f"ignored: {place}: ")
    assert len(tuned.state()) < 600
    assert "\n" not in tuned.state()
    assert kernel_used() == tiles.kernel_name(ENCODINGS[ENCODING], DEFAULT, detect.TIER)

    monkeypatch.setenv(tuned.VARIABLE, str(place))
    for forget in (tuned.forget, plan.forget_kernels):
        forget()
    with pytest.raises(ValueError, match=r"^TERNOPS_TUNING=") as error:
        ternops.pack(cases.trits(3, 5))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert ternops.info()["tuning"].startswith("error: TERNOPS_TUNING=")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_is_no_file(place, tmp_path, monkeypatch):
    """A pipe that nobody writes, a device without an end, a folder, a link to itself."""
    for make in (
        lambda: os.mkfifo(place), lambda: place.symlink_to("/dev/zero"), lambda: place.mkdir(),
        lambda: place.symlink_to(place),
    ):  # fmt: skip
        make()
        tuned.forget()
        assert tuned.tuned() == tuned.Tuned()
        assert tuned.state().startswith("ignored: ")
        place.rmdir() if place.is_dir() else place.unlink()
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path / "nowhere"))
    tuned.forget()
    with pytest.raises(ValueError, match=r"^TERNOPS_TUNING='.*nowhere': no such file$"):
        tuned.tuned()


def test_off_ignores_it(place, monkeypatch):
    """However well it fits."""
    place.write_text(text(), "utf-8")
    monkeypatch.setenv(tuned.VARIABLE, "off")
    tuned.forget()
    assert tuned.tuned() == tuned.Tuned()
    assert tuned.state() == "off (TERNOPS_TUNING)"


def test_a_named_file_is_used(place, monkeypatch, tmp_path):
    """Wherever it lies."""
    path = tmp_path / "mine"
    path.write_text(text(), "utf-8")
    monkeypatch.setenv(tuned.VARIABLE, str(path))
    tuned.forget()
    assert tuned.tuned().tiles == {(ENCODING, "stream"): OTHER}


def test_each_cpu_and_tier_has_a_file(monkeypatch):
    """In a home that several machines share; without a folder there is none."""
    paths = {tuned.usual_path()}
    monkeypatch.setattr(tuned, "cpu_model", lambda: "../../Another (R) CPU\n")
    paths.add(tuned.usual_path())
    monkeypatch.setattr(tuned, "cpu_cache_bytes", lambda: {2: 1 << 10})
    paths.add(tuned.usual_path())
    monkeypatch.setattr(tuned, "TIER", detect.TIERS[-1].extended("made-up"))
    paths.add(tuned.usual_path())
    assert len(paths) == 4
    assert len({path.parent for path in paths}) == 1
    monkeypatch.setattr(tuned, "cache_folder", lambda: "")
    assert tuned.usual_path() is None
    monkeypatch.delenv(tuned.VARIABLE, raising=False)
    tuned.forget()
    assert tuned.state() == "none: there is no folder for it"
    tuned.forget()


def test_importing_reads_nothing():
    """Nor does a process in whose usual place there is no file read TOML."""
    code = "import sys, ternops; ternops.pack; print('tomllib' in sys.modules)"
    assert processes.run_code(code).split() == ["False"]


def test_the_text_of_these_tests_is_a_file_that_fits(place):
    """Or every one of them could pass for another reason."""
    assert tomllib.loads(text())["tier"] == detect.TIER.name
    place.write_text(text(), "utf-8")
    assert tuned.read(place).tiles == {(ENCODING, "stream"): OTHER}
    assert OTHER != DEFAULT
    assert np.all([isinstance(value, int) for value in OTHER])
