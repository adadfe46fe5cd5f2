"""Files of matrices with a scale a group of columns, damaged ones, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

import ternops
from ternops.encodings import ENCODINGS, PANELS
from ternops.encodings.panels import GROUPS
from tests.helpers import cases, checks, internals
from tests.helpers.cases import grouped as of
from tests.helpers.matrix_files import damage_is_noticed, refused

ENCODING = pytest.mark.parametrize("encoding", PANELS)
GROUP = pytest.mark.parametrize("group", GROUPS)
#: Those of `pack` and `quantize` that have none.
OTHERS = [name for name in ENCODINGS if name not in PANELS]


def content(matrix):
    """All that makes a matrix, for comparisons."""
    return (
        matrix.shape, matrix.encoding, matrix.group, internals.is_transposed(matrix),
        matrix.to_trits().tobytes("C"), matrix.scale.dtype, matrix.scale.tobytes(),
    )  # fmt: skip


@ENCODING
@GROUP
@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_file_gives_the_same_matrix(tmp_path, encoding, group, is_half, transposed):
    """Also saved again, and with no rows."""
    for rows in (0, 1, 37):
        _, _, matrix = of(rows, 768, group, encoding, is_half)
        matrix = matrix.T if transposed else matrix
        matrix.save(tmp_path / "a")
        loaded = ternops.load(tmp_path / "a")
        assert content(loaded) == content(matrix)
        loaded.save(tmp_path / "b")
        assert content(ternops.load(tmp_path / "b")) == content(matrix)
        x = cases.activations(3, matrix.shape[1])
        assert cases.same_bits(x @ loaded.T, x @ matrix.T)


@pytest.mark.parametrize("is_half", [True, False])
def test_a_damaged_file_is_never_another_matrix(tmp_path, is_half):
    """A bit of each byte flipped, and every length."""
    _, _, matrix = of(2, 64, 32, is_half=is_half)
    damage_is_noticed(tmp_path, matrix, content)


def _scaled(change):
    return lambda m, t: t.update(scale=np.ascontiguousarray(change(t["scale"])))


def _first_scale(value):
    def change(metadata, tensors):
        tensors["scale"] = tensors["scale"].copy()
        tensors["scale"].flat[0] = value

    return change


CHANGES = {
    "a row less": _scaled(lambda s: s[:-1]),
    "a group less": _scaled(lambda s: s[:, :-1]),
    "half as many groups": _scaled(lambda s: s[:, ::2]),
    "twice as many": _scaled(lambda s: s.repeat(2, axis=1)),
    "eight times as many": _scaled(lambda s: s.repeat(8, axis=1)),
    "transposed": _scaled(lambda s: s.T),
    "flat": _scaled(np.ravel),
    "deep": _scaled(lambda s: s[None]),
    "one a row": _scaled(lambda s: s[:, 0]),
    "empty": _scaled(lambda s: s[:0]),
    "float64": _scaled(lambda s: s.astype(np.float64)),
    "int16": _scaled(lambda s: s.view(np.int16)),
    "none": lambda m, t: t.pop("scale"),
    "nan": _first_scale(np.nan),
    "infinite": _first_scale(np.inf),
    "look-up encoding": lambda m, t: m.update(encoding="tl1"),
    "another encoding": lambda m, t: m.update(encoding="base3"),
    "more rows": lambda m, t: m.update(rows="20"),
    "no rows": lambda m, t: m.update(rows="0"),
    "more columns": lambda m, t: m.update(columns="512"),
    "no columns": lambda m, t: m.update(columns="0"),
    "code 3": lambda m, t: t.update(packed=t["packed"] | np.uint8(3)),
    "short": lambda m, t: t.update(packed=t["packed"][:-1].copy()),
    "rows alone": lambda m, t: t.update(packed=np.resize(t["packed"], 19 * 64 + 64)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_contradictory_file_is_refused(tmp_path, name):
    """Well-formed files with a right checksum whose fields do not fit one another."""
    _, _, matrix = of(19, 256, 64)
    matrix.save(tmp_path / "good")
    with safetensors.safe_open(tmp_path / "good", framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    CHANGES[name](metadata, tensors)
    metadata["crc32"] = internals.file_checksum(metadata, tensors)
    (tmp_path / "bad").write_bytes(safetensors.numpy.save(tensors, metadata))
    if name in ("half as many groups", "twice as many"):  # right files of other matrices
        loaded = ternops.load(tmp_path / "bad")
        assert loaded.group == 256 // tensors["scale"].shape[1]
        assert cases.same_bits(loaded.to_trits(), matrix.to_trits())
    else:
        refused(tmp_path / "bad")


def fails(error, words, call):
    """As elsewhere, and the line says what was expected."""
    checks.fails(error, f"{words} expected", call)


SCALE = cases.group_scales(3, 4)


def _with(value):
    scale = SCALE.astype(np.result_type(np.float64, np.asarray(value)))
    scale[1, 2] = value
    return scale


@pytest.mark.parametrize(
    ("error", "words", "scale"),
    [
        *((ValueError, f"scale scale[1,2] {value}".replace("[1,2]", "[1,"), _with(value))
          for value in (np.nan, np.inf, -np.inf, 1e39, -1e39)),
        (TypeError, "scale complex128", _with(1j)),
        (TypeError, "scale dtype", SCALE.astype(str)),
        (TypeError, "scale dtype", SCALE.astype(object)),
        (TypeError, "scale bool", SCALE > 0),
        *((ValueError, f"scale shape {shape} (3, (3, 4) (3, 32)", np.ones(shape))
          for shape in ((3, 1), (3, 3), (3, 5), (3, 64), (3, 0), (0, 4), (2, 4), (4, 3), (1, 4))),
        (ValueError, "scale shape (3, 4, 1)", np.ones((3, 4, 1))),
        (ValueError, "scale shape (4,)", np.ones(4)),
        (TypeError, "scale masked", np.ma.masked_array(SCALE, SCALE > 1)),
    ],
)  # fmt: skip
def test_pack_names_bad_scales(error, words, scale):
    """One line with the place, the value, and what shapes there are."""
    fails(error, words, lambda: ternops.pack(cases.trits(3, 512), scale))


@pytest.mark.parametrize("columns", [1, 31, 33, 40, 100, 0])
def test_columns_that_no_group_divides(columns):
    """Named by both functions."""
    weight = np.ones((2, columns), np.float32)
    fails(ValueError, f"group=32 {columns} columns", lambda: ternops.quantize(weight, group=32))
    trits = np.ones((2, columns), np.int8)
    fails(ValueError, "scale shape (2, 1) 16,", lambda: ternops.pack(trits, np.ones((2, 1))))


@pytest.mark.parametrize("group", [0, 1, -128, 8, 48, 100, 512, 2**70, True, np.int8(8)])
def test_an_unknown_group(group):
    """One line that says which there are."""
    weight = np.ones((2, 512), np.float32)
    error = TypeError if group is True else ValueError
    words = "group= integer" if group is True else "group= 16, 32, 64, 128, 256"
    fails(error, words, lambda: ternops.quantize(weight, group=group))


@pytest.mark.parametrize("group", ["128", 128.0, np.float32(64), [128], (64,), 1j])
def test_a_group_that_is_no_integer(group):
    """A TypeError that names the argument; NumPy's integers are as good as Python's."""
    weight = np.ones((2, 512), np.float32)
    fails(TypeError, "group= integer", lambda: ternops.quantize(weight, group=group))
    assert ternops.quantize(weight, group=np.int16(128)).group == 128


@pytest.mark.parametrize("encoding", OTHERS)
def test_encodings_without_groups(encoding):
    """Refused where a matrix is made and where it is converted, not when it is multiplied."""
    words = f"group=128 {encoding} two_bit base3 one_bit"
    weights, scale, matrix = of(3, 256, 128)
    fails(ValueError, words, lambda: ternops.pack(weights, scale, encoding))
    fails(ValueError, words, lambda: ternops.quantize(np.ones((3, 256)), encoding, group=128))
    fails(ValueError, words, lambda: matrix.to(encoding))


def test_weights_are_looked_at_before_groups():
    """Whose fault it is is named: not that of the group."""
    for value in (np.ones(256), np.ones((1, 2, 256)), np.float32(1)):
        fails(ValueError, "w: shape", lambda: ternops.quantize(value, group=128))  # noqa: B023
    fails(TypeError, "w: int8", lambda: ternops.quantize(np.ones((2, 256), np.int8), group=128))
    w = np.ones((2, 256))
    w[1, 200] = np.nan
    fails(ValueError, "w[1, 200] nan", lambda: ternops.quantize(w, group=128))
    w = np.ones((2, 2**15))
    w[1, :128] = 1e39
    for encoding in ("two_bit", "one_bit"):
        words = "w: scale float32"
        fails(ValueError, words, lambda: ternops.quantize(w, encoding, group=128))  # noqa: B023
