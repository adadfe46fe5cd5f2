"""GGUF files of Qwen2, Gemma 3 and MiniCPM: each number, norm and bias has its place."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ternops.decoder import Model
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.hugging_face_rope import read_rope
from ternops.decoder.formats.loading import load_weights
from ternops.decoder.weights import HalfMatrix
from tests.helpers import cases, gguf_files
from tests.helpers.gguf_files import TRUNKS

TOKENS = [0, 299, 7, 7, 19, 150, 2, 8, 41, 41, 5, 299]
#: Settings that a file says in keys, or in tensors, of their own.
CHANGES = {
    "qwen2": {},
    "gemma3": {"windows": (), "rope_local_theta": 0.0},
    "qwen35": {"rope_theta": 500.0},
    "minicpm": {"rope_factors": tuple(np.linspace(1, 2, 32).tolist()), "rope_original": 12,
                "rope_long_factors": tuple(np.linspace(2, 5, 32).tolist())},
}  # fmt: skip


class Plain(Checkpoint):
    """Values as they are, without a file."""

    def __init__(self, config, values):
        self.config, self.values = config, values

    def trits(self, layer, name):
        trits, scale = self.values.linear[layer, name]
        return trits, np.asarray(scale)

    def norm(self, layer, name):
        return self.values.norms[layer, name]

    def bias(self, layer, name):
        return self.values.biases[layer, name]

    def vector(self, layer, name):
        return self.values.vectors[layer, name]

    def final_norm(self):
        return self.values.norm

    def embedding(self):
        return HalfMatrix.from_floats(self.values.embedding)

    def head(self):
        return HalfMatrix.from_floats(self.values.head)

    def tokenizer(self):
        raise NotImplementedError

    chat_template = special_tokens = tokenizer


def logits(config, values):
    """What a model of these values computes."""
    return Model(load_weights(Plain(config, values), "two_bit"), 1).logits(TOKENS)


@pytest.fixture(scope="module")
def values():
    """Random ones of each trunk."""
    return {name: gguf_files.random_values(config) for name, config in TRUNKS.items()}


@pytest.mark.parametrize("kind", ["TQ2_0", "Q2_0", "F32"])
@pytest.mark.parametrize("name", TRUNKS)
def test_the_same_logits(tmp_path, values, name, kind):
    """As of the values themselves, whatever order the file has the rows of heads in."""
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values[name], name, kind, embedding="F32")
    assert Gguf(path).config == TRUNKS[name]
    found = Model.from_pretrained(path, threads=1).logits(TOKENS)
    assert cases.same_bits(found, logits(TRUNKS[name], values[name]))
    assert found.std() > 0.1


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("name", TRUNKS)
def test_written_and_read_again(tmp_path, values, name, changed):
    """Everything that the file says, and the logits."""
    config = replace(TRUNKS[name], **CHANGES[name]) if changed else TRUNKS[name]
    tensors = {
        f"rope_factors_{each}.weight": np.array(factors, np.float32)
        for each, factors in (("short", config.rope_factors), ("long", config.rope_long_factors))
        if factors
    }
    metadata = {f"{name}.attention.sliding_window": max(config.windows, default=0)}
    if config.rope_original:
        metadata[f"{name}.rope.scaling.original_context_length"] = config.rope_original
    source = gguf_files.write_gguf(
        tmp_path / "a.gguf", values[name], name, config=config, tensors=tensors, metadata=metadata
    )
    first = Gguf(source).config
    assert first.rope_original == config.rope_original
    assert np.allclose(first.rope_long_factors, config.rope_long_factors)
    convert_to_gguf(source, tmp_path / "b.gguf")
    assert Gguf(tmp_path / "b.gguf").config == first
    found = [Model.from_pretrained(tmp_path / each, threads=1).logits(TOKENS)
             for each in ("a.gguf", "b.gguf")]  # fmt: skip
    assert cases.same_bits(*found)
    assert cases.same_bits(found[0], logits(first, values[name]))


def read(tmp_path, architecture, metadata, **settings):
    """The Config of a file with some keys."""
    values = gguf_files.random_values(settings.get("config") or TRUNKS[architecture])
    metadata = {f"{architecture}.{key}": value for key, value in metadata.items()}
    return Gguf(gguf_files.write_gguf(
        tmp_path / "a.gguf", values, architecture, metadata=metadata, **settings
    )).config  # fmt: skip


def test_what_gemma_files_leave_out(tmp_path):
    """Five layers of six have the window; a base of rope of their own may be there."""
    config = replace(gguf_files.GEMMA3, layers=8, ffn=256, windows=(7,) * 7 + (0,))
    found = read(tmp_path, "gemma3", {"attention.sliding_window_pattern": None}, config=config)
    assert found.windows == (7, 7, 7, 7, 7, 0, 7, 7)
    assert found.rope_local_theta == 10000
    assert read(tmp_path, "gemma3", {"rope.freq_base_swa": 500.0}).rope_local_theta == 500
    found = read(tmp_path, "gemma3", {"attention.sliding_window": None})
    assert (found.windows, found.rope_local_theta) == ((), 0)
    # The scores of the 27B model alone are scaled by another number.
    config = replace(gguf_files.GEMMA3, layers=62, ffn=256, windows=())
    assert read(tmp_path, "gemma3", {}, config=config).query_scalar == 64


def test_what_minicpm_files_leave_out(tmp_path):
    """What llama.cpp takes then."""
    keys = dict.fromkeys(("embedding_scale", "residual_scale", "logit_scale"))
    found = read(tmp_path, "minicpm", keys)
    assert found.embedding_scale == 12
    assert found.residual_scale == pytest.approx(1.4 / math.sqrt(2))
    assert found.logit_scale == 1


def test_yarn(tmp_path):
    """As transformers computes it from the same numbers; the scale that old files have as a factor
    multiplies it."""
    keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "context_length": 4096,
            "rope.scaling.original_context_length": 1024}  # fmt: skip
    found = read(tmp_path, "qwen2", keys)
    expected = read_rope({"rope_type": "yarn", "factor": 4.0}, 1e6, 64, 4096, 1024)
    assert found.rope_factors == expected.factors
    assert found.rope_scale == expected.scale == pytest.approx(1 + 0.1 * math.log(4))
    assert len(set(found.rope_factors)) > 2
    scaled = read(tmp_path, "qwen2", {**keys, "rope.scaling.attn_factor": 0.5})
    assert scaled.rope_scale == pytest.approx(0.5 * expected.scale)
    other = read(tmp_path, "qwen2", {**keys, "rope.scaling.yarn_beta_fast": 8.0})
    assert other.rope_factors != expected.factors
    read(tmp_path, "qwen2", keys)
    convert_to_gguf(tmp_path / "a.gguf", tmp_path / "b.gguf")
    assert Gguf(tmp_path / "b.gguf").config == found


@pytest.mark.parametrize(
    ("architecture", "key", "value", "words"),
    [
        ("qwen2", "rope.scaling.type", "su", "expected none or linear or yarn or longrope"),
        ("qwen2", "attention.sliding_window", 7, "sliding_window is 7, expected at least"),
        ("qwen2", "embedding_scale", 12.0, "embedding_scale is 12.0, expected 1 or 0"),
        ("gemma3", "attention.sliding_window_pattern", 0, "pattern is 0, expected 1 or more"),
        ("gemma3", "attention.sliding_window", "7", "expected an integer"),
        ("gemma3", "final_logit_softcapping", 30.0, "final_logit_softcapping is 30.0, expected 0"),
        ("gemma3", "attention.scale", 0.5, "attention.scale is 0.5, expected"),
        ("minicpm", "logit_scale", -2.0, "logit_scale is -0.5, expected a positive number"),
        ("minicpm", "residual_scale", 0.0, "residual_scale is 0.0, expected a positive number"),
    ],
)
def test_a_bad_setting_is_named(tmp_path, architecture, key, value, words):
    """Each with its key and value."""
    with pytest.raises(ValueError, match=f"^config: .*{words}"):
        read(tmp_path, architecture, {key: value})


def test_the_scale_of_rotated_queries(tmp_path):
    """Whatever the kind of rope is."""
    assert read(tmp_path, "qwen2", {"rope.scaling.attn_factor": 1.25}).rope_scale == 1.25
    with pytest.raises(ValueError, match=r"^config: rope_scale is 0\.0, expected a positive"):
        read(tmp_path, "qwen2", {"rope.scaling.attn_factor": 0.0})
    # There llama.cpp scales them in layers with a window, too, which transformers does not.
    with pytest.raises(ValueError, match=r"attn_factor is 1\.25, expected 1 beside layers"):
        read(tmp_path, "gemma3", {"rope.scaling.attn_factor": 1.25})


def test_yarn_that_is_another(tmp_path):
    """What llama.cpp would compute otherwise is refused."""
    keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    for name, value in (("yarn_ext_factor", 0.5), ("yarn_attn_factor", 2.0),
                        ("yarn_log_multiplier", 0.1)):  # fmt: skip
        with pytest.raises(ValueError, match=rf"qwen2\.rope\.scaling\.{name} is {value}, expected"):
            read(tmp_path, "qwen2", {**keys, f"rope.scaling.{name}": value})


def test_biases_that_have_no_place(tmp_path, values):
    """In an architecture without, or of another layer."""
    bias = np.zeros(512, np.float32)
    for name, tensor in (("gemma3", "blk.0.attn_q.bias"), ("qwen2", "blk.0.ffn_up.bias")):
        path = gguf_files.write_gguf(tmp_path / "a.gguf", values[name], name,
                                     tensors={tensor: bias})  # fmt: skip
        with pytest.raises(ValueError, match=f"holds {tensor}, which is no part of a {name} model"):
            Gguf(path)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values["qwen2"], "qwen2",
                                 tensors={"blk.1.attn_k.bias": None})  # fmt: skip
    with pytest.raises(ValueError, match=r"tensor blk\.1\.attn_k\.bias is missing"):
        Model.from_pretrained(path, threads=1)


def test_norms_within_linear_layers(tmp_path):
    """Of BitNet's embedding models: their tensors alone say so, and floats are then masters."""
    config = replace(gguf_files.QWEN3, inner_norms=True, inner_epsilon=1e-6)
    values = gguf_files.random_values(config)
    weight = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float32)
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values, "qwen3", config=config,
        tensors={"blk.0.ffn_up.weight": weight},
    )  # fmt: skip
    assert Gguf(path).config == config
    values.linear[0, "up"] = Gguf(path).trits(0, "up")
    assert values.linear[0, "up"][1] == pytest.approx(np.abs(weight).mean())
    found = Model.from_pretrained(path, threads=1).logits(TOKENS)
    assert cases.same_bits(found, logits(config, values))
    with pytest.raises(ValueError, match=r"inner_norms is True, which llama\.cpp's qwen3 has no"):
        convert_to_gguf(path, tmp_path / "b.gguf")
