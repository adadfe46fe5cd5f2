"""What `quantize --to gguf` writes is the same model: read here again, and by the gguf package."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import gguf
import numpy as np
import pytest

from ternops.__main__ import main
from ternops.decoder import Model
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_blocks import decode
from ternops.decoder.formats.gguf_encode import encode
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.gguf_keys import config_keys, form_of
from ternops.decoder.formats.gguf_tokenizer import build_tokenizer
from ternops.decoder.formats.gguf_tokenizer_keys import tokenizer_keys
from ternops.decoder.formats.gguf_types import Q2_0_LAYOUTS, kind_of
from ternops.decoder.formats.loading import TINY
from ternops.decoder.formats.scales import fewest_scales, products
from tests.helpers import cases, checkpoints, gguf_files

TOKENS = [0, 299, 7, 7, 19, 150, 2]
TQ1_0, TQ2_0, Q1_0, Q2_0, F16 = 34, 35, 41, 42, 1


def scales(*shape, seed=0):
    """Random ones that float16 has."""
    found = np.random.default_rng(seed).uniform(0.01, 1, shape)
    return found.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    ("columns", "scale", "base3", "number"),
    [
        (512, scales(), False, TQ2_0),
        (512, scales(), True, TQ1_0),
        (512, scales(24), False, TQ2_0),
        (512, scales(24, 2), False, TQ2_0),
        (512, scales(24, 2), True, TQ1_0),
        (512, scales(24, 4), True, Q2_0),
        (512, scales(24, 8), False, Q2_0),
        (512, scales(24, 16), False, F16),
        (320, scales(), False, Q2_0),
        (320, scales(24), True, Q2_0),
        (100, scales(24), False, F16),
        (100, scales(), False, F16),
    ],
)
@pytest.mark.parametrize("signs", [False, True])
def test_the_type_of_a_matrix(columns, scale, base3, number, signs):
    """The one whose blocks hold its scales; every weight comes back."""
    values = [-1, 1] if signs else [-1, 0, 1]
    trits = np.random.default_rng(1).choice(values, (24, columns)).astype(np.int8)
    groups = scale.shape[1] if scale.ndim == 2 else 1
    if signs and columns % 128 == 0 and (columns // groups) % 128 == 0:
        number = Q1_0
    found = encode(trits, scale, base3)
    assert (found.number, found.factor, found.rounded) == (number, None, False)
    if number == F16:
        assert cases.same_bits(found.data.astype(np.float32), products(trits, scale))
        return
    kind = Q2_0_LAYOUTS[0] if number == Q2_0 else kind_of(number)
    again = decode(kind, found.data.reshape(-1), trits.shape)
    assert cases.same_bits(again[0], trits)
    assert cases.same_bits(again[1], scale)


def test_scales_that_float16_has_not():
    """One is a factor beside the blocks, exactly; several are rounded; none may vanish."""
    trits = np.random.default_rng(1).integers(-1, 2, (24, 512), np.int8)
    found = encode(trits, np.asarray(np.float32(0.1)))
    assert found.factor == np.float32(0.1)
    assert not found.rounded
    assert decode(kind_of(found.number), found.data.reshape(-1), trits.shape)[1] == 1
    third = np.full(24, 1 / 3, np.float32)
    third[0] = 0.5
    found = encode(trits, third)
    assert found.rounded
    again = decode(kind_of(found.number), found.data.reshape(-1), trits.shape)
    assert cases.same_bits(again[1], third.astype(np.float16).astype(np.float32))
    for bad, text in ((2.0**-30, "9.313225746154785e-10"), (2.0**20, "1048576.0")):
        third[3] = bad
        with pytest.raises(ValueError, match=f"^has the scale {text}, expected what float16 can"):
            encode(trits, third)


@pytest.mark.parametrize("encoding", ["two_bit", "base3"])
@pytest.mark.parametrize("architecture", ["llama", "bitnet-25", "qwen3"])
def test_the_same_model(tmp_path, architecture, encoding):
    """Logits to the last bit, and the Config, from a folder to GGUF."""
    config = gguf_files.ARCHITECTURES[architecture]
    most = 2 if architecture == "llama" else 1  # the others have no tensor of factors
    factors = tuple(np.linspace(2, 2 * most, config.head_dim // 2).tolist())
    config = replace(config, rope_factors=factors)
    values = gguf_files.random_values(config)
    values.linear[1, "down"] = values.linear[1, "down"][0], np.float32(0.1)
    source = gguf_files.write_gguf(tmp_path / "source.gguf", values, architecture, "F32",
                                   embedding="F32", config=config, tensors={
        "rope_freqs.weight": np.array(config.rope_factors, np.float32)})  # fmt: skip
    lines = []
    target = tmp_path / "target.gguf"
    convert_to_gguf(source, target, encoding, say=lines.append)
    assert lines == [f"without a tokenizer: model: {str(source)!r} has no tokenizer"]
    one, other = Model.from_pretrained(source, threads=1), Model.from_pretrained(target, threads=1)
    assert one.config == other.config
    assert cases.same_bits(one.logits(TOKENS), other.logits(TOKENS))
    kinds = {tensor.kind.name for tensor in GgufFile(target).tensors.values()}
    assert kinds == {"F32", "F16", "TQ2_0" if encoding == "two_bit" else "TQ1_0"}
    assert sorted(os.listdir(tmp_path)) == ["source.gguf", "target.gguf"]
    theirs = {each.name: each for each in gguf.GGUFReader(target).tensors}
    for name, tensor in GgufFile(target).tensors.items():
        assert theirs[name].data.tobytes() == tensor.data.tobytes()


def test_groups(tmp_path):
    """Of 64, 128 and 256 inputs, in rows that are permuted, too."""
    values = gguf_files.random_values(gguf_files.LLAMA)
    wanted = {}
    for name, groups in (("q", 4), ("k", 2), ("down", 2), ("o", 1)):
        trits, _ = values.linear[1, name]
        scale = scales(len(trits), groups)
        wanted[name] = trits, scale if groups > 1 else scale[:, 0]
        values.linear[1, name] = trits, scale
    plain = gguf_files.random_values(gguf_files.LLAMA)
    form = gguf_files.LLAMA.trunk.gguf[0]
    tensors = {}
    for name, (trits, scale) in wanted.items():
        floats = products(trits, scale)
        if name in ("q", "k"):
            floats = gguf_files.neighbours(floats, gguf_files.LLAMA.head_dim)
        tensors[form.matrix(1, name)] = floats, "F32"
    source = gguf_files.write_gguf(tmp_path / "source.gguf", plain, tensors=tensors)
    convert_to_gguf(source, tmp_path / "target.gguf")
    found = Gguf(tmp_path / "target.gguf")
    for name, (trits, scale) in wanted.items():
        again = found.trits(1, name)
        assert cases.same_bits(products(*again), products(trits, scale))
        expected = fewest_scales(scale, np.ones(scale.shape, bool), trits.shape[1]) if (
            scale.ndim == 2) else scale  # fmt: skip
        assert cases.same_bits(again[1], expected)
    assert GgufFile(tmp_path / "target.gguf").tensors["blk.1.attn_q.weight"].kind.name == "Q2_0"


def test_integers_where_gguf_has_floats(tmp_path):
    """Falcon 3's config.json says "rope_theta": 1000042. A file with an integer opens nowhere."""
    config = replace(gguf_files.LLAMA, rope_theta=1000042, epsilon=1)
    values = gguf_files.random_values(config)
    folder = gguf_files.write_folder(tmp_path / "folder", config, values)
    convert_to_gguf(folder, tmp_path / "a.gguf")
    one, other = (Model.from_pretrained(path, threads=1) for path in (folder, tmp_path / "a.gguf"))
    assert one.config == other.config == replace(config, tied=one.config.tied)
    assert cases.same_bits(one.logits(TOKENS), other.logits(TOKENS))
    config = replace(gguf_files.GEMMA3, rope_local_theta=10000, rope_scale=2)
    keys = config_keys(config, form_of(config))
    names = ("rope.freq_base_swa", "rope.scaling.attn_factor")
    assert all(type(keys[f"gemma3.{name}"]) is float for name in names)


def test_the_command(tmp_path, capfd):
    """A Hugging Face folder with a tokenizer: it generates the same text."""
    target = tmp_path / "tiny.gguf"
    assert main(["quantize", str(TINY), str(target), "--to", "gguf"]) == 0
    assert capfd.readouterr().out == f"{target}: GGUF, {target.stat().st_size:,} bytes\n"
    texts = []
    for model in (str(TINY), str(target)):
        arguments = ["--model", model, "--prompt", "def main(", "--max-new-tokens", "12"]
        assert main(["generate", *arguments]) == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1]
    assert len(texts[0]) > 10


def test_what_is_refused(tmp_path, capfd):
    """In one line, leaving nothing behind and what was there as it was."""
    folder = checkpoints.write(tmp_path / "source")
    target = tmp_path / "out" / "a.gguf"
    target.parent.mkdir()
    for arguments, words in (
        (["--encoding", "tl2"], "encoding='tl2': expected 'base3' or 'two_bit' for GGUF"),
        ([], "without a tokenizer"),
    ):
        code = main(["quantize", str(folder), str(target), "--to", "gguf", *arguments])
        assert words in capfd.readouterr().err
        assert (code == 0) == (not arguments)
    before = target.read_bytes()
    assert main(["quantize", str(target), str(target), "--to", "gguf"]) == 2
    assert "is what is to be read" in capfd.readouterr().err
    assert target.read_bytes() == before
    assert os.listdir(target.parent) == ["a.gguf"]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "smollm", "qwen2", "default"])
def test_byte_level_tokenizers(pre):
    """From keys to a tokenizer and back: the same tokens of every text."""
    keys = gguf_files.tokenizer_metadata(TINY / "tokenizer.json", pre)
    same_tokenizer(keys, pre)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_piece(prefix):
    """The same for one with scores."""
    _, keys = gguf_files.sentence_piece()
    same_tokenizer({**keys, "tokenizer.ggml.add_space_prefix": prefix}, "default")


def same_tokenizer(keys, pre):
    as_read = {key: np.array(value) if key.endswith(("type", "scores")) else value
               for key, value in keys.items()}  # fmt: skip
    tokenizer = build_tokenizer(as_read)
    special = {"bos_token": keys["tokenizer.ggml.tokens"][keys["tokenizer.ggml.bos_token_id"]]}
    eos = keys["tokenizer.ggml.eos_token_id"]
    count = len(keys["tokenizer.ggml.tokens"])
    found = tokenizer_keys(tokenizer, special, (eos,), count + 3)
    assert found["tokenizer.ggml.pre"] == pre
    assert found["tokenizer.ggml.tokens"] == [
        *keys["tokenizer.ggml.tokens"], *(f"[PAD{count + at}]" for at in range(3))
    ]  # fmt: skip
    assert found["tokenizer.ggml.token_type"][:count] == keys["tokenizer.ggml.token_type"]
    for name in ("bos_token_id", "eos_token_id"):
        assert found[f"tokenizer.ggml.{name}"] == keys[f"tokenizer.ggml.{name}"]
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.ggml.add_eos_token"] is False
    again = build_tokenizer(
        {key: np.array(value) if key.endswith(("type", "scores")) else value
         for key, value in found.items()}
    )  # fmt: skip
    for text in gguf_files.TEXTS:
        assert again.encode(text).ids == tokenizer.encode(text).ids


def test_a_tokenizer_that_has_no_name(tmp_path):
    """Its patterns are in the line."""
    folder = checkpoints.write(tmp_path / "source")
    shutil.copy(TINY / "tokenizer.json", folder)
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    raw["pre_tokenizer"]["use_regex"] = False
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"^tokenizer: its patterns are \[\], expected those of"):
        convert_to_gguf(folder, tmp_path / "a.gguf")
