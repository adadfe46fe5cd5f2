"""Blocks that become packed bytes without trits in between: the same matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants

from ternops import pack, set_num_threads
from ternops.decoder import Model
from ternops.decoder.formats import gguf_types, straight
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_blocks import PACKED, decode
from ternops.decoder.formats.gguf_types import Q2_0_LAYOUTS
from ternops.decoder.formats.loading import load_weights
from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.safetensors_file import map_file
from ternops.decoder.formats.scales import products
from ternops.decoder.formats.tables import table_scale
from ternops.memory import Arena
from tests.helpers import cases, gguf_files, internals

CONFIG = replace(gguf_files.QWEN3, hidden=512, ffn=768)


KINDS = ("Q2_0", "Q2_0 of 128", "PQ2_0", "TQ2_0", "TQ1_0", "PTQ1_0", "Q1_0", "IQ2_BN", "I2_S")
#: Scales: how many inputs share one, of 1536; what other rows than the first ones have, if that is
#: another; and of what all matrices are full.
SCALES = {"blocks": 64, "256": 256, "512": 512, "rows": 1536, "first rows": 1536, "one": 0}


def scales(rows, groups):
    """Random ones that float16 has."""
    found = np.random.default_rng(1).uniform(0.01, 1, (rows, groups))
    return found.astype(np.float16).astype(np.float32)


def kind_of(name):
    """The type and how many weights its blocks have."""
    if name.startswith("Q2_0"):
        return Q2_0_LAYOUTS["128" in name]
    return gguf_types.kind_of(gguf_files.NUMBERS.get(name) or Type[name])


def bytes_of(weight, name):
    """A tensor's."""
    if name[:2] == "TQ":
        return quants.quantize(weight, Type[name]).reshape(-1)
    return gguf_files.ternary_bytes(weight, name).reshape(-1)


def matrix_of(name, group, rows=33, columns=1536):
    """Trits, and as many scales as are told; some blocks, and a row, are zeros."""
    kind = kind_of(name)
    least = columns if kind.prefix or kind.tail else kind.weights
    group = max(group or columns, least)
    trits = np.random.default_rng(rows).integers(-1, 2, (rows, columns), np.int8)
    if name == "Q1_0":
        trits = np.where(trits, trits, np.int8(1))
    trits[5] = trits[7, :256] = trits[:, 512:640] = 0
    scale = np.repeat(scales(rows, columns // group), group // least, axis=1)
    return kind, trits, scale, least


@pytest.mark.parametrize("encoding", ["two_bit", "base3"])
@pytest.mark.parametrize("name", KINDS)
def test_the_bytes(eager_threads, name, encoding):
    """Those that packing the trits gives, and the scales, whatever of these agree: blocks of a
    row, rows, and not only the first ones."""
    for what, group in SCALES.items():
        kind, trits, scale, _ = matrix_of(name, group)
        if what == "one" or kind.tail:
            scale[:] = scale[0, 0]
        if what == "first rows":
            scale[20] = scales(1, scale.shape[1])
        data = bytes_of(products(trits, scale), name)
        order = np.random.default_rng(0).permutation(33).astype(np.intp)
        for moved in (None, order):
            with set_num_threads(2 if moved is None else 3):
                found = straight.pack_blocks(kind, data, trits.shape, encoding, Arena(), moved)
            trits, expected = decode(kind, data, trits.shape)
            if moved is not None:
                trits, expected = trits[moved], expected[moved] if expected.ndim else expected
            same_matrix(found, pack(trits, expected, encoding))
        table = straight.pack_blocks(kind, data, trits.shape, encoding, Arena(), is_table=True)
        whole = table_scale(decode(kind, data, trits.shape)[1], *trits.shape)
        same_matrix(table, pack(decode(kind, data, trits.shape)[0], whole, encoding))


@pytest.mark.parametrize("name", KINDS)
def test_any_number_of_columns(name):
    """Of blocks that are no multiple of the encodings', and of more than are worked on at once."""
    kind = kind_of(name)
    for columns in (64, 128, 192, 256, 320, 384, 832, 2560, 2624, 2688, 5376):
        if columns % kind.weights == 0:
            _, trits, scale, _ = matrix_of(name, kind.weights, 18, columns)
            scale[:] = scale[0, 0] if kind.tail else scale
            data = bytes_of(products(trits, scale), name)
            for encoding in ("two_bit", "base3"):
                found = straight.pack_blocks(kind, data, trits.shape, encoding, Arena())
                same_matrix(found, pack(*decode(kind, data, trits.shape), encoding))


def same_matrix(found, expected):
    """Also bit for bit, and in how scales are kept."""
    assert found is not None
    assert found.encoding == expected.encoding
    assert found.group == expected.group
    assert found.scale.dtype == expected.scale.dtype
    assert cases.same_bits(np.asarray(found.scale), np.asarray(expected.scale))
    one, other = internals.packed(found), internals.packed(expected)
    assert cases.same_bits(np.asarray(one.factors), np.asarray(other.factors))
    assert cases.same_bits(one.bytes, other.bytes)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_matrix(name):
    """A code 3 in any place of a byte, a scale that is not positive where it multiplies anything:
    none, as `decode` raises; of what multiplies nothing, any scale will do."""
    kind, trits, scale, _ = matrix_of(name, 64)
    codes = PACKED[kind.name]
    weight = products(trits, scale)
    shape = trits.shape

    def both(data):
        found = straight.pack_blocks(kind, data, shape, "base3", Arena())
        try:
            expected = pack(*decode(kind, data, shape), "base3")
        except ValueError:
            assert found is None
            return False
        same_matrix(found, expected)
        return True

    clean = bytes_of(weight, name)
    assert both(clean)
    blocks = clean[: len(clean) - kind.tail].reshape(33, -1)
    for row, byte, shift in ((0, 1, 0), (17, 7, 2), (32, 9, 4), (9, 15, 6)):
        data = clean.copy()
        at = row * blocks.shape[1] + kind.prefix + codes.codes + byte
        data[at] |= 3 << shift
        assert both(data) == ("2" not in name or "TQ1" in name), shift
    if codes.scale is None:
        return
    for row, group, is_used in ((3, 1, True), (5, 0, False), (7, 0, False)):
        for value in (0.0, -0.0, -1.0, np.nan, np.inf, -np.inf):
            data = clean.copy()
            at = row * blocks.shape[1] + group * kind.size + codes.scale
            data[at : at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
            if name == "Q1_0":  # no zeros but of the scale 0
                assert both(data) == (value == 0)
            else:
                assert both(data) == (not is_used)


def test_signs_without_zeros():
    """One bit a weight holds no zero, and no code of two bits."""
    kind, trits, scale, _ = matrix_of("Q1_0", 128)
    ones = np.where(trits, trits, np.int8(1))
    data = bytes_of(products(ones, scale), "Q1_0")
    same_matrix(straight.pack_blocks(kind, data, ones.shape, "one_bit", Arena()),
                pack(*decode(kind, data, ones.shape), "one_bit"))  # fmt: skip
    data = bytes_of(products(trits, scale), "Q1_0")
    assert straight.pack_blocks(kind, data, ones.shape, "one_bit", Arena()) is None
    kind = kind_of("Q2_0")
    data = bytes_of(products(ones, scale), "Q2_0")
    assert straight.pack_blocks(kind, data, ones.shape, "one_bit", Arena()) is None


@pytest.mark.parametrize("encoding", ["tl1", "tl2"])
def test_other_encodings(encoding):
    """Have no such kernel."""
    kind, trits, scale, _ = matrix_of("Q2_0", 1536)
    data = bytes_of(products(trits, scale), "Q2_0")
    assert straight.pack_blocks(kind, data, trits.shape, encoding, Arena()) is None


@pytest.mark.parametrize("kind", ["Q2_0", "Q2_0 of 128", "PQ2_0", "TQ2_0"])
@pytest.mark.parametrize("group", [64, 128, 256])
def test_matrices_of_files(tmp_path, monkeypatch, kind, group):
    """Trits, scales and their dtype are those of `pack`; groups of zeros have any scale."""
    values = gguf_files.random_values(CONFIG)
    trits = np.random.default_rng(0).integers(-1, 2, (512, 768), np.int8)
    trits[5] = 0
    trits[17, :256] = 0
    block = {"Q2_0": 64, "TQ2_0": 256}.get(kind, 128)
    weight = products(trits, scales(512, 768 // max(group, block)))
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values, "qwen3", "F16", config=CONFIG,
        tensors={"blk.1.ffn_down.weight": (weight, kind)},
    )  # fmt: skip
    found = Gguf(path).matrix(1, "down", "two_bit")
    expected = pack(*Gguf(path).trits(1, "down"), "two_bit")
    assert found.group == expected.group == max(group, block)
    assert found.scale.dtype == expected.scale.dtype == np.float16
    assert cases.same_bits(found.scale, expected.scale)
    assert cases.same_bits(found.to_trits(), trits)
    assert cases.same_bits(internals.packed(found).bytes, internals.packed(expected).bytes)
    # It is the straight way that was taken, where there is one.
    calls = []
    monkeypatch.setattr(Gguf, "trits", lambda *_: calls.append(_) or (trits, np.float32([1] * 512)))
    Gguf(path).matrix(1, "down", "two_bit")
    assert not calls


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "I2_S"])
def test_a_factor_beside_the_blocks(tmp_path, monkeypatch, kind):
    """Multiplies the scale, of heads rotated by neighbours as well; the straight way is taken."""
    values, factor = gguf_files.random_values(gguf_files.LLAMA), np.float32([0.3])
    scaled = {f"blk.1.{part}.scale": factor for part in ("attn_q", "ffn_down")}
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values, "llama", kind, tensors=scaled)
    expected = {name: pack(*Gguf(path).trits(1, name), "base3") for name in ("q", "k", "down")}
    monkeypatch.setattr(Gguf, "trits", None)
    for name, matrix in expected.items():
        same_matrix(Gguf(path).matrix(1, name, "base3"), matrix)


def test_damage_is_named(tmp_path):
    """As if there were no straight way."""
    values = gguf_files.random_values(CONFIG)
    trits = np.random.default_rng(0).integers(-1, 2, (512, 768), np.int8)
    data = gguf_files.ternary_bytes(products(trits, scales(512, 12)), "Q2_0")
    for at, value, words in ((7, 0xFF, "the code 3 in row 9"), (1, 0x80, "the scale -")):
        changed = data.copy()
        changed[9, at] |= value
        path = gguf_files.write_gguf(
            tmp_path / "a.gguf", values, "qwen3", "F16", config=CONFIG,
            tensors={"blk.1.ffn_down.weight": (changed, "Q2_0")},
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"blk\.1\.ffn_down\.weight holds {words}"):
            Gguf(path).matrix(1, "down", "two_bit")


def grouped_file(path, kind="Q2_0", group=128, names=None, embedding="F16"):
    """A model whose matrices (or those of some names) have a scale a group; its embedding, too,
    unless that has a kind for floats."""
    values = gguf_files.random_values(CONFIG)
    form = CONFIG.trunk.gguf[0]
    tensors = {}
    for at, (name, (trits, _)) in enumerate(values.linear.items()):
        if names is None or name[1] in names:
            rows, columns = trits.shape
            each = np.random.default_rng(at).uniform(0.01, 0.1, (rows, columns // group))
            each = each.astype(np.float32 if kind == "F32" else np.float16).astype(np.float32)
            tensors[form.matrix(*name)] = products(trits, each), kind
    if embedding != "F16":
        trits = np.sign(values.embedding).astype(np.int8)
        values.embedding = products(trits, scales(len(trits), CONFIG.hidden // group))
    return gguf_files.write_gguf(
        path, values, "qwen3", "TQ2_0", config=CONFIG, tensors=tensors, embedding=embedding
    )


@pytest.mark.parametrize("embedding", ["F16", "Q2_0 of 128"])
@pytest.mark.parametrize("kind", ["Q2_0 of 128", "F32"])
@pytest.mark.parametrize("encoding", ["two_bit", "base3"])
def test_packed_files(tmp_path, kind, encoding, embedding):
    """Keep groups and the dtype of their scales, and give the same matrices and logits; so does a
    GGUF file that is written of them."""
    source = grouped_file(tmp_path / "a.gguf", kind, embedding=embedding)
    target = tmp_path / "packed"
    convert(source, target, encoding)
    first, again = Gguf(source), PackedFile(target)
    for layer, name in ((0, "q"), (1, "down")):
        one, other = first.matrix(layer, name, encoding), again.matrix(layer, name, encoding)
        assert one.group == other.group == 128
        assert one.scale.dtype == (np.float32 if kind == "F32" else np.float16)
        assert cases.same_bits(one.scale, other.scale)
        assert cases.same_bits(internals.packed(one).bytes, internals.packed(other).bytes)
    assert list(again.verify())
    assert cases.same_bits(first.embedding().to_dense(), again.embedding().to_dense())
    models = [Model.from_pretrained(path, threads=1, weights=encoding) for path in (source, target)]
    logits = models[0].logits([1, 2, 3])
    assert cases.same_bits(models[1].logits([1, 2, 3]), logits)
    if kind != "F32":
        convert_to_gguf(target, tmp_path / "b.gguf")
        third = Model.from_pretrained(tmp_path / "b.gguf", threads=1, weights=encoding)
        assert type(third.weights.embedding) is type(models[0].weights.embedding)
        assert cases.same_bits(third.logits([1, 2, 3]), logits)


def test_matrices_of_several_groups(tmp_path):
    """All get that of the finest one: a model of shards has groups in some matrices alone."""
    path = grouped_file(tmp_path / "a.gguf", names=("o", "down"))
    weights = load_weights(Gguf(path), "two_bit")
    for layer in range(2):
        for name, matrix in weights.layers[layer].linear.items():
            assert matrix.group == 128
            trits, scale = Gguf(path).trits(layer, name)
            assert cases.same_bits(matrix.to_trits(), trits)
            dense = (matrix.to_trits().reshape(*matrix.scale.shape, 128) * np.float32(1)) * (
                matrix.scale[..., None].astype(np.float32)
            )
            assert cases.same_bits(dense.reshape(trits.shape), products(trits, scale))
    assert np.isfinite(Model.from_pretrained(path, threads=1).logits([1, 2, 3])).all()


def test_groups_that_a_file_cannot_have(tmp_path):
    """An encoding without panels; a packed file whose scales are not finite."""
    source, target = grouped_file(tmp_path / "a.gguf"), tmp_path / "packed"
    with pytest.raises(ValueError, match=r"^group=128: not with encoding 'tl1'"):
        convert(source, target, "tl1")
    assert not target.exists()
    convert(source, target, "two_bit")
    header, tensors = map_file(target)
    start = tensors["layers.1.down.scales128"].start
    data = bytearray(target.read_bytes())
    data[start : start + 2] = np.float16(np.inf).tobytes()
    target.write_bytes(data)
    with pytest.raises(ValueError, match="the scale of down in layer 1 is not finite"):
        load_weights(PackedFile(target), "two_bit")
    assert header


def test_signs(tmp_path):
    """A file of Q1_0 alone becomes one_bit, with the logits of two_bit; with a zero in it, or a
    matrix of another type, it does not."""
    values = gguf_files.random_values(CONFIG)
    random = np.random.default_rng(0)
    for at, (trits, _) in values.linear.items():
        signs = random.choice(np.array([-1, 1], np.int8), trits.shape)
        values.linear[at] = signs, scales(len(trits), trits.shape[1] // 128)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values, "qwen3", "Q1_0", config=CONFIG)
    models = [Model.from_pretrained(path, threads=1, weights=each)
              for each in ("ternary", "two_bit")]  # fmt: skip
    assert [model.encoding for model in models] == ["one_bit", "two_bit"]
    assert cases.same_bits(*(model.logits([1, 2, 3]) for model in models))
    values.linear[1, "o"][1][7, 2] = 0
    path = gguf_files.write_gguf(tmp_path / "b.gguf", values, "qwen3", "Q1_0", config=CONFIG)
    assert Model.from_pretrained(path, threads=1).encoding != "one_bit"
    path = grouped_file(tmp_path / "c.gguf")
    assert Gguf(path).preferred_encoding() != "one_bit"
