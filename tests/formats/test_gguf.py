"""GGUF files are read exactly, whatever their types; damaged and foreign ones are refused."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from dataclasses import replace

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants

from ternops.absmean import absmean
from ternops.decoder import Model
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.loading import load_weights, open_checkpoint
from tests.helpers import cases, checkpoints, gguf_files

TOKENS = [0, 299, 7, 7, 19, 150, 2]
Q, DOWN = "blk.0.attn_q.weight", "blk.1.ffn_down.weight"

#: One block, one head: the least model whose rows TQ blocks fill.
SMALL = replace(gguf_files.LLAMA, heads=1, kv_heads=1, head_dim=256, ffn=256, layers=1,
                vocabulary=3)  # fmt: skip


@pytest.fixture(scope="module")
def values():
    """The tensors of a random model by architecture."""
    return {
        name: gguf_files.random_values(config) for name, config in gguf_files.ARCHITECTURES.items()
    }


@pytest.fixture(scope="module")
def expected(values, tmp_path_factory):
    """The logits of the same models out of Hugging Face folders, and their Config."""
    found = {}
    for name, config in gguf_files.ARCHITECTURES.items():
        folder = gguf_files.write_folder(tmp_path_factory.mktemp(name), config, values[name])
        model = Model.from_pretrained(folder, threads=1)
        found[name] = model.logits(TOKENS), model.config
    return found


def refused(path, words, error=ValueError):
    """Loading raises in one line that holds all the words."""
    with pytest.raises(error) as caught:
        Model.from_pretrained(path, threads=1)
    message = str(caught.value)
    assert "\n" not in message
    for word in words.split():
        assert word in message


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "I2_S", "Q2_0", "IQ1_BN", "F16", "F32"])
@pytest.mark.parametrize("architecture", gguf_files.ARCHITECTURES)
def test_logits_equal_those_of_a_folder(tmp_path, values, expected, architecture, kind):
    """Each type of the linear layers holds the same trits and scales, to the last bit."""
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values[architecture], architecture, kind, embedding="F32"
    )
    model = Model.from_pretrained(path, threads=1)
    logits, config = expected[architecture]
    assert model.config == config
    assert cases.same_bits(model.logits(TOKENS), logits)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "F16"])
def test_separate_scales(tmp_path, values, expected, kind):
    """attn_q.scale and its like multiply what the blocks hold."""
    halved, scales = replace(values["llama"], linear={}), {}
    for (layer, name), (trits, scale) in values["llama"].linear.items():
        halved.linear[layer, name] = trits, scale / 4
        tensor = gguf_files.LLAMA.trunk.gguf[0].matrix(layer, name)
        scales[tensor.replace("weight", "scale")] = np.array([4], np.float32)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", halved, "llama", kind, tensors=scales)
    logits = Model.from_pretrained(path, threads=1).logits(TOKENS)
    assert cases.same_bits(logits, expected["llama"][0])
    for bad in (0, -1, np.inf, np.nan, 1e-45):
        scales["blk.1.ffn_up.scale"] = np.array([bad], np.float32)
        path = gguf_files.write_gguf(tmp_path / "a.gguf", halved, "llama", kind, tensors=scales)
        refused(path, "checkpoint: blk.1.ffn_up.scale")


def test_float_masters_are_quantised(tmp_path, values):
    """Gaussian weights: by absmean, if that is asked for; ternary ones are kept."""
    weight = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    ternary = np.zeros_like(weight)
    ternary[::3, 1], ternary[5] = -0.3, 0.3
    tensors = {"blk.0.ffn_up.weight": weight, "blk.0.ffn_gate.weight": ternary}
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values["llama"], tensors=tensors)
    with pytest.raises(ValueError, match=r"^checkpoint: blk\.0\.ffn_up\.weight is not ternary: "):
        Gguf(path).trits(0, "up")
    trits, scale = Gguf(path, "absmean").trits(0, "up")
    assert cases.same_bits(trits, absmean(weight)[0])
    assert scale == absmean(weight)[1]
    trits, scale = Gguf(path).trits(0, "gate")
    assert cases.same_bits(trits * scale, ternary)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
@pytest.mark.parametrize("architecture", ["llama", "bitnet-25"])
def test_a_scale_a_row(tmp_path, values, architecture, kind):
    """Trits times scales are what was written, those of keys in the order of transformers."""
    changed = replace(values[architecture], linear=dict(values[architecture].linear))
    random = np.random.default_rng(2)
    for name in ("k", "down"):
        trits = changed.linear[1, name][0].copy()
        trits[5] = 0
        scales = random.uniform(0.5, 2, len(trits)).astype(np.float16).astype(np.float32)
        changed.linear[1, name] = trits, scales
    path = gguf_files.write_gguf(tmp_path / "a.gguf", changed, architecture, kind)
    for name in ("k", "down"):
        trits, scales = changed.linear[1, name]
        found, scale = Gguf(path).trits(1, name)
        assert cases.same_bits(found, trits)
        assert cases.same_bits(found * scale[:, None], trits * scales[:, None])
    assert np.isfinite(Model.from_pretrained(path, threads=1).logits(TOKENS)).all()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_types_of_the_embedding(tmp_path, values, kind):
    """Two bytes a weight: what the gguf package makes of it, rounded to float16."""
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values["llama"], embedding=kind)
    weights = load_weights(open_checkpoint(path), "two_bit")
    for matrix, source in ((weights.embedding, values["llama"].embedding),
                           (weights.head, values["llama"].head)):  # fmt: skip
        floats = quants.dequantize(quants.quantize(source, Type[kind]), Type[kind])
        assert matrix.is_bf16 == (kind == "BF16")
        if kind != "BF16":
            floats = floats.astype(np.float16).astype(np.float32)
        assert cases.same_bits(matrix.to_dense(), floats)


@pytest.mark.parametrize(("kind", "halves"), [("Q4_K", (0, 2)), ("Q5_K", (0, 2)), ("Q6_K", (-2,))])
def test_block_types_of_llama_cpp(tmp_path, values, kind, halves):
    """Of random blocks with sensible scales: the gguf package has no quantiser for these."""
    size = gguf.GGML_QUANT_SIZES[Type[kind]][1]
    blocks = np.random.default_rng(0).integers(0, 256, (300, size), np.uint8)
    for at in halves:
        blocks[:, at % size : at % size + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", replace(values["llama"], embedding=blocks, head=blocks), embedding=kind
    )
    expected = quants.dequantize(blocks, Type[kind]).astype(np.float16).astype(np.float32)
    assert cases.same_bits(Gguf(path).embedding().to_dense(), expected)
    assert cases.same_bits(Gguf(path).head().to_dense(), expected)
    assert expected.std() > 1


@pytest.mark.parametrize(
    ("words", "block"),
    [
        ("scale 0.0 positive", {"d": 0.0}),
        ("scale -2.0 positive", {"d": -2.0}),
        ("scale nan positive", {"d": np.nan}),
        ("scale inf positive", {"d": np.inf}),
        ("code 3 row 1", {"qs": 0b01_11_01_01}),
    ],
)
def test_what_is_not_ternary_is_named(tmp_path, values, words, block):
    """The tensor, and what its blocks hold: a TQ2_0 file of other weights, or another layout."""
    values = replace(values["llama"], linear=dict(values["llama"].linear))
    values.linear[1, "down"] = np.ones((256, 512), np.int8), np.float32(2)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values)
    data = bytearray(path.read_bytes())
    start = tensor_start(path, DOWN) + 3 * 66
    if "d" in block:
        data[start + 64 : start + 66] = np.float16(block["d"]).tobytes()
    else:
        data[start] = block["qs"]
    path.write_bytes(data)
    refused(path, f"checkpoint: {DOWN} {words}")


@pytest.mark.parametrize(
    ("words", "at", "written"),
    [
        ("code 3 row 0", 17, b"\x30"),
        ("code 3 row 3", 400, b"\xc0"),
        ("scale 0.0 positive", -32, struct.pack("<f", 0)),
        ("scale -1.0 positive", -32, struct.pack("<f", -1)),
        ("scale nan positive", -32, struct.pack("<f", np.nan)),
        ("scale inf positive", -32, struct.pack("<f", np.inf)),
    ],
)
def test_i2_s_of_another_layout_is_named(tmp_path, values, words, at, written):
    """As far as its content shows: the code 3, and a scale that is not a number."""
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values["llama"], kind="I2_S")
    data = bytearray(path.read_bytes())
    start = tensor_start(path, DOWN) + (at if at >= 0 else 256 * 512 // 4)
    data[start : start + len(written)] = written
    path.write_bytes(data)
    refused(path, f"checkpoint: {DOWN} {words}")


def tensor_start(path, name):
    """Where a tensor's data begin: their address less that of the file's first byte."""
    file = GgufFile(path)
    tensor = file.tensors[name]
    whole = np.frombuffer(tensor.data.base, np.uint8)
    return tensor.data.ctypes.data - whole.ctypes.data


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", "mamba", "general.architecture 'mamba' llama bitnet-25"),
        ("llama.block_count", None, "llama.block_count missing"),
        ("llama.block_count", 0, "layers 0"),
        ("llama.block_count", 2**24 - 1, "layers 16777215 4096"),
        ("llama.block_count", 3, "blk.2.attn_q.weight missing"),
        ("llama.block_count", 1, "blk.1. 1 layers"),
        ("llama.block_count", "2", "llama.block_count '2' integer"),
        ("llama.block_count", 2.0, "llama.block_count 2.0 integer"),
        ("llama.block_count", True, "llama.block_count True integer"),
        ("llama.block_count", [2, 2], "llama.block_count integer"),
        ("llama.block_count", list(range(500)), "llama.block_count integer"),
        ("general.architecture", "llama" * 1000, "general.architecture ... bitnet"),
        ("llama.embedding_length", None, "llama.embedding_length missing"),
        ("llama.embedding_length", 255, "shape"),
        ("llama.feed_forward_length", None, "llama.feed_forward_length missing"),
        ("llama.context_length", None, "llama.context_length missing"),
        ("llama.context_length", 2**31, "context 2147483648"),
        ("llama.attention.head_count", None, "llama.attention.head_count missing"),
        ("llama.attention.head_count", 0, "heads 0"),
        ("llama.attention.head_count_kv", 3, "4 heads 3"),
        ("llama.attention.key_length", 2**31, "llama.attention.value_length 64 2147483648"),
        ("llama.attention.value_length", 32, "llama.attention.value_length 32 64"),
        ("llama.rope.dimension_count", 32, "llama.rope.dimension_count 32 64"),
        ("llama.rope.freq_base", 0.0, "rope_theta 0.0"),
        ("llama.rope.freq_base", 10000, "llama.rope.freq_base 10000 float"),
        ("llama.rope.scaling.type", "su", "llama.rope.scaling.type 'su' none linear"),
        ("llama.rope.scaling.factor", -1.0, "rope_factors -1.0"),
        ("llama.attention.layer_norm_rms_epsilon", None, "layer_norm_rms_epsilon missing"),
        ("llama.hidden_activation", "gelu", "llama.hidden_activation 'gelu' silu relu2"),
        ("llama.vocab_size", 301, "token_embd.weight shape (300, 256) (301, 256)"),
        ("tokenizer.ggml.eos_token_id", "1", "tokenizer.ggml.eos_token_id '1'"),
    ],
)
def test_a_bad_setting_is_named(tmp_path, values, key, value, words):
    """Each with its key and value."""
    refused(
        gguf_files.write_gguf(tmp_path / "a.gguf", values["llama"], metadata={key: value}), words
    )


def test_what_metadata_may_leave_out(tmp_path, values):
    """Key/value heads, head size, vocabulary and theta have their defaults."""
    left_out = ("attention.head_count_kv", "attention.key_length", "attention.value_length",
                "rope.dimension_count", "rope.freq_base", "vocab_size")  # fmt: skip
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values["llama"], metadata={f"llama.{key}": None for key in left_out}
    )
    assert Gguf(path).config == replace(gguf_files.LLAMA, kv_heads=4)


@pytest.mark.parametrize(
    ("architecture", "key", "expected"),
    [
        ("llama", None, "silu"),
        ("bitnet", "silu", "silu"),
        ("bitnet", "relu2", "relu2"),
        ("bitnet-b1.58", None, "relu2"),
        ("bitnet-25", None, "relu2"),
        ("bitnet-25", "silu", "silu"),
    ],
)
def test_the_activation(tmp_path, values, architecture, key, expected):
    """The architecture decides, unless the file does."""
    config = gguf_files.ARCHITECTURES.get(architecture, gguf_files.BITNET)
    source = values.get(architecture, values["bitnet-25"])
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", source, architecture, config=config,
        metadata={f"{architecture}.hidden_activation": key},
    )  # fmt: skip
    assert Gguf(path).config == replace(config, activation=expected)


def test_scaled_rope(tmp_path, values):
    """A linear factor and LLaMA 3.1's factors divide the frequencies; the factor 1 does not."""

    def factors(tensor=None, **metadata):
        path = gguf_files.write_gguf(
            tmp_path / "a.gguf", values["llama"],
            metadata={f"llama.rope.{key}": value for key, value in metadata.items()},
            tensors={} if tensor is None else {"rope_freqs.weight": tensor},
        )  # fmt: skip
        return Gguf(path).config.rope_factors

    assert factors(**{"scaling.type": "linear", "scaling.factor": 1.0}) == ()
    assert factors(**{"scaling.type": "none", "scaling.factor": 0.0}) == ()
    assert factors(**{"scaling.type": "none", "scaling.factor": 4.0}) == ()
    assert factors(np.ones(32, np.float32)) == ()
    assert factors(**{"scaling.type": "linear", "scaling.factor": 4.0}) == (4.0,) * 32
    assert factors(scale_linear=2.0) == (2.0,) * 32
    each = np.linspace(1, 8, 32, dtype=np.float32)
    assert factors(each) == tuple(each.tolist())
    assert factors(each, **{"scaling.factor": 2.0}) == tuple((2 * each).tolist())
    with pytest.raises(ValueError, match=r"rope_freqs\.weight has shape \(31,\), expected \(32,\)"):
        factors(each[:31])


def test_a_bad_tensor_is_named(tmp_path, values):
    """Missing, of another shape or type, not finite, beyond float16, or one that nobody reads."""
    floats = np.zeros((256, 256), np.float32)
    norm, bad = np.ones(256, np.float32), np.full((300, 256), 1e6, np.float32)
    for tensors, words in (
        ({Q: None}, f"checkpoint: {Q} missing"),
        ({"output_norm.weight": None}, "checkpoint: output_norm.weight missing"),
        ({"token_embd.weight": None}, "checkpoint: token_embd.weight missing"),
        ({Q: floats[:128]}, f"checkpoint: {Q} shape (128, 256) (256, 256)"),
        ({Q: floats.reshape(-1)}, f"checkpoint: {Q} shape (65536,)"),
        (
            {Q: floats.astype(np.int8)},
            f"checkpoint: {Q} type I8 Q1_0, Q2_0, I2_S, F32",
        ),
        ({Q: floats.astype(np.float64)}, f"checkpoint: {Q} type F64"),
        ({Q: floats + np.nan}, f"checkpoint: {Q} NaN"),
        ({"blk.1.attn_norm.weight": norm * np.inf}, "checkpoint: blk.1.attn_norm.weight infinity"),
        ({"blk.1.attn_norm.weight": norm[:-1]}, "checkpoint: blk.1.attn_norm.weight shape (255,)"),
        ({"token_embd.weight": bad}, "checkpoint: token_embd.weight float16 65504"),
        ({"output.weight": bad}, "checkpoint: output.weight float16 65504"),
        ({"token_embd.weight": bad.astype(np.int16)}, "checkpoint: token_embd.weight I16 Q6_K"),
        ({"blk.0.attn_q.bias": norm}, "model: a.gguf blk.0.attn_q.bias no part of a llama model"),
        ({"blk.0.attn_q_norm.weight": norm}, "model: a.gguf blk.0.attn_q_norm.weight"),
        ({"blk.0.attn_sub_norm.weight": norm}, "model: a.gguf blk.0.attn_sub_norm.weight"),
        ({"blk.0.attn_norm.scale": norm[:1]}, "model: a.gguf blk.0.attn_norm.scale"),
        ({"blk.00002.attn_norm.weight": norm}, "model: a.gguf blk.00002.attn_norm.weight 2 layers"),
        ({"blk.99999999999.attn_norm.weight": norm}, "model: a.gguf blk.99999999999"),
        ({"output": norm}, "model: a.gguf holds output"),
    ):
        path = gguf_files.write_gguf(tmp_path / "a.gguf", values["llama"], tensors=tensors)
        refused(path, words)


def test_rows_that_blocks_do_not_fill(tmp_path):
    """TQ's 256 must divide them; I2_S runs on over their ends, as in the 3B model of 8640."""
    config = replace(SMALL, ffn=192)
    small = gguf_files.random_values(config)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", small, kind="I2_S", config=config)
    trits, scale = Gguf(path).trits(0, "down")
    assert cases.same_bits(trits, small.linear[0, "down"][0])
    assert scale == small.linear[0, "down"][1]
    data = bytearray(path.read_bytes())
    at = data.index(b"blk.0.ffn_down.weight") + len("blk.0.ffn_down.weight") + 4 + 16
    data[at : at + 4] = struct.pack("<I", 35)
    path.write_bytes(data)
    refused(path, "model: a.gguf blk.0.ffn_down.weight 192 256")
    data[at : at + 4] = struct.pack("<I", 38)
    path.write_bytes(data)
    refused(path, "model: a.gguf blk.0.ffn_down.weight type 38 I2_S TQ2_0")
    config = replace(SMALL, hidden=8, ffn=8, head_dim=2, vocabulary=2)
    small = gguf_files.random_values(config)
    small.linear[0, "q"] = np.ones((2, 8), np.int8), np.float32(1)
    with pytest.raises(ValueError, match="cannot reshape"):
        gguf_files.write_gguf(path, small, kind="I2_S", config=config)


def test_what_is_opened(tmp_path, values):
    """A file by its content or its name; a folder with one such file and no config.json."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = gguf_files.write_gguf(folder / "a.gguf", values["llama"])
    for where in (path, folder, str(folder)):
        assert isinstance(open_checkpoint(where), Gguf)
    renamed = path.rename(folder / "weights.bin")
    assert isinstance(open_checkpoint(renamed), Gguf)
    refused(folder, "model: folder config.json", FileNotFoundError)
    (folder / "b.gguf").write_bytes(renamed.read_bytes())
    (folder / "c.gguf").write_bytes(b"GGUF")
    refused(folder, "model: folder b.gguf, c.gguf one")
    checkpoints.write(folder)
    assert not isinstance(open_checkpoint(folder), Gguf)
    refused(tmp_path / "none.gguf", "model: none.gguf", FileNotFoundError)
    for data in (b"", b"GG", b"GGML" * 10, b"{}" * 100):
        (tmp_path / "no.gguf").write_bytes(data)
        refused(tmp_path / "no.gguf", "model: no.gguf is no GGUF file")


def test_without_the_gguf_package(tmp_path, values, monkeypatch):
    """One line says what to install."""
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values["llama"])
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(path, "gguf is not installed: pip install 'ternops[llm]'", ModuleNotFoundError)


def test_a_model_outlives_its_file(tmp_path, values):
    """Weights are copied: nothing changes when the bytes do."""
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values["llama"])
    model = Model.from_pretrained(path, threads=1)
    before = model.logits(TOKENS)
    with open(path, "rb+") as file:
        file.write(bytes(path.stat().st_size))
    assert cases.same_bits(model.logits(TOKENS), before)


def test_metadata_of_every_type(tmp_path):
    """The same values as the gguf package's own reader finds."""
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind in ("uint8", "uint16", "uint32", "uint64"):
        getattr(writer, f"add_{kind}")(kind, 2 ** int(kind[4:]) - 1)
    for kind in ("int8", "int16", "int32", "int64"):
        getattr(writer, f"add_{kind}")(kind, -(2 ** (int(kind[3:]) - 1)))
    for kind in ("float32", "float64"):
        getattr(writer, f"add_{kind}")(kind, 0.1)
    writer.add_bool("yes", True)
    writer.add_bool("no", False)
    writer.add_string("text", "grüße \u2581")
    writer.add_array("strings", ["a", "", "\U0001f600"])
    writer.add_array("integers", [1, -2, 3])
    writer.add_array("floats", [0.5, -1.0])
    writer.add_array("bools", [True, False])
    writer.add_custom_alignment(128)
    writer.add_tensor("x", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("y", np.arange(4, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file, reader = GgufFile(path), gguf.GGUFReader(path)
    theirs = {k: v.contents() for k, v in reader.fields.items() if not k.startswith("GGUF.")}
    ours = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in file.metadata.items()}
    assert ours == theirs
    assert file.metadata["yes"] is True
    for tensor in reader.tensors:
        mine = file.tensors[tensor.name]
        assert mine.shape == tuple(reversed(tensor.shape.tolist()))
        assert mine.data.tobytes() == tensor.data.tobytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small whole file, and where each number of its header lies: (place, bytes,
    whether it is a size, a count or an offset)."""
    path = tmp_path_factory.mktemp("small") / "a.gguf"
    tokens = {"tokenizer.ggml.tokens": ["a", "bc", "d"], "tokenizer.ggml.model": "gpt2",
              "tokenizer.ggml.scores": [0.5, 1.0, 2.0]}  # fmt: skip
    gguf_files.write_gguf(path, gguf_files.random_values(SMALL), config=SMALL, tokenizer=tokens)
    reader = gguf.GGUFReader(path)
    places = [(4, 4, False), (8, 8, True), (16, 8, True)]
    fields = [field for name, field in reader.fields.items() if not name.startswith("GGUF.")]
    for field in fields + [tensor.field for tensor in reader.tensors]:
        start = field.offset
        values = {index for index in field.data if field.types}
        for index, part in enumerate(field.parts):
            if part.dtype.itemsize in (4, 8) and index not in values:
                step = part.dtype.itemsize
                places += [(start + i, step, step == 8) for i in range(0, part.nbytes, step)]
            start += part.nbytes
    return path.read_bytes(), places, reader.data_offset


def opened(path, data):
    """The error of opening these bytes and reading all tensors, None without one."""
    path.write_bytes(data)
    try:
        load_weights(Gguf(path), "two_bit")
    except ValueError as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    assert any(word in message for word in ("a.gguf", "checkpoint: ", "config: "))
    return message


def test_a_small_file_is_whole(tmp_path, small):
    """What the damage of the next tests is done to."""
    assert opened(tmp_path / "a.gguf", small[0]) is None
    assert len(small[1]) > 100


@pytest.mark.parametrize("value", [2**60, -1, 2**31 - 1, 0, 1])
def test_damaged_headers(tmp_path, small, value):
    """Each count, length, type, size and offset of the header replaced: refused in one line, at
    once and without memory for what is not there. Few changes by 0 or 1 are none."""
    data, places, _ = small
    tracemalloc.start()
    assert opened(tmp_path / "a.gguf", data) is None
    needed = tracemalloc.get_traced_memory()[1]
    unnoticed = 0
    for start, size, is_size in places:
        changed = (value % 2 ** (8 * size)).to_bytes(size, "little")
        if changed == data[start : start + size]:
            continue
        error = opened(tmp_path / "a.gguf", data[:start] + changed + data[start + size :])
        if error is None:
            assert not (is_size and value in (2**60, -1)), f"byte {start}"
            unnoticed += 1
    assert tracemalloc.get_traced_memory()[1] < 2 * needed
    tracemalloc.stop()
    # Offsets of 0 make one tensor of another, which nothing in a file can tell.
    assert unnoticed <= 14


def test_truncated_files(tmp_path, small):
    """Cut off in the header, between the tensors and within them."""
    data, _, header = small
    for length in [*range(0, header, 97), header, header + 1, len(data) - 40_000]:
        assert "a.gguf" in opened(tmp_path / "a.gguf", data[:length]), length


def test_other_damage(tmp_path, small):
    """Old versions, swapped bytes, names twice, bytes that are not text, and nested arrays."""
    data = small[0]
    length, three, many = b"\x01" + bytes(7), b"\x03" + bytes(7), (2**60).to_bytes(8, "little")
    for old, new, words in (
        (data[:8], b"GGUF\1\0\0\0", "version is 1, expected 2 or 3"),
        (data[:8], b"GGUF\0\0\0\3", "big-endian"),
        (data[:8], b"GGUF\4\0\0\0", "version is 4, expected 2 or 3"),
        (data[:16], data[:8] + many, "tensor count is 1152921504606846976, more than the file"),
        (data[:24], data[:16] + many, "metadata count is 1152921504606846976, more than the file"),
        (three + length + b"a", many + length + b"a", "length of tokenizer.ggml.tokens is 11529"),
        (b"attn_k.weight\x02", b"attn_k.weight\x05", "blk.0.attn_k.weight has 5 dimensions"),
        (b"attn_k.weight\x02\0\0\0\0\1", b"attn_k.weight\x02\0\0\0\0\0", "expected none to be 0"),
        (b"llama.context_length", b"llama.rope.freq_base", "key llama.rope.freq_base occurs twice"),
        (b"blk.0.attn_k.weight", b"blk.0.attn_q.weight", "tensor blk.0.attn_q.weight occurs twice"),
        (b"llama.context_length", b"\xff" * 20, "is not UTF-8"),
        (b"llama.context_length", b"llama\ncontext_length", "expected printable characters"),
        (b"blk.0.attn_k.weight", b"blk.0.attn_k.\x1beight", "expected printable characters"),
        (length + b"a\x02", length + b"\xff\x02", "tokenizer.ggml.tokens is not UTF-8"),
        (b"tokens\x09\0\0\0\x08", b"tokens\x09\0\0\0\x09", "tokens is an array of the type 9"),
        (b"context_length\x04", b"context_length\x0d", "llama.context_length has the type 13"),
        (b"context_length\x04", b"context_length\x07", "llama.context_length is"),
    ):
        assert data.count(old) == 1
        message = opened(tmp_path / "a.gguf", data.replace(old, new))
        assert words in message


@pytest.mark.parametrize("alignment", [0, 3, 2**31 + 1, "32"])
def test_a_bad_alignment(tmp_path, values, alignment):
    """It must be a power of two, and tensors lie at its multiples."""
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values["llama"], metadata={"general.alignment": alignment}
    )
    refused(path, f"model: a.gguf general.alignment {alignment!r} power")


def test_an_offset_between_multiples(tmp_path, values):
    """Of the alignment that the file states, larger than that it was written with."""
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values["llama"], metadata={"general.alignment": 1 << 15}
    )
    refused(path, "model: a.gguf offset multiple 32768")
