"""Small GGUF files, written by the gguf package, and Hugging Face folders of the same model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFWriter, quants
from gguf import GGMLQuantizationType as Type
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from ternops.decoder import Config
from ternops.decoder.architectures import find_gguf
from ternops.decoder.formats.scales import products
from tests.helpers import checkpoints

BITNET = Config(
    hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=300, context=48,
    activation="relu2", architecture="bitnet", tied=True, rope_theta=500000.0, epsilon=1e-5,
)  # fmt: skip
LLAMA = Config(
    hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=300, context=48,
    activation="silu", architecture="llama", tied=False, rope_theta=10000.0, epsilon=1e-6,
)  # fmt: skip
QWEN3 = Config(
    hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, head_dim=128, vocabulary=300, context=48,
    activation="silu", architecture="qwen3", tied=True, rope_theta=1000000.0, epsilon=1e-6,
)  # fmt: skip
QWEN2 = Config(
    hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=300, context=48,
    activation="silu", architecture="qwen2", tied=False, rope_theta=1000000.0, epsilon=1e-6,
)  # fmt: skip
GEMMA3 = Config(
    hidden=256, ffn=512, layers=3, heads=4, kv_heads=2, head_dim=128, vocabulary=300, context=48,
    activation="gelu_tanh", architecture="gemma3", tied=True, rope_theta=1000000.0, epsilon=1e-6,
    windows=(7, 7, 0), rope_local_theta=10000.0, embedding_scale=16.0,
)  # fmt: skip
MINICPM = Config(
    hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=300, context=48,
    activation="silu", architecture="minicpm", tied=False, rope_theta=10000.0, epsilon=1e-5,
    embedding_scale=12.0, residual_scale=0.75, logit_scale=0.5,
)  # fmt: skip
QWEN35 = Config(
    hidden=256, ffn=512, layers=4, heads=4, kv_heads=2, head_dim=64, vocabulary=300, context=48,
    activation="silu", architecture="qwen3.5", tied=False, rope_theta=1000000.0, epsilon=1e-6,
    rotary_dim=16, delta_layers=(1, 1, 1, 0), delta_heads=4, delta_key_heads=2, delta_key_dim=64,
    delta_value_dim=64, delta_tiled=True,
)  # fmt: skip
#: Those that have more than LLaMA has, but for BitNet's norms and Qwen3's.
TRUNKS = {"qwen2": QWEN2, "gemma3": GEMMA3, "minicpm": MINICPM, "qwen35": QWEN35}
#: Of each other architecture a file may name: its layout.
ARCHITECTURES = {"llama": LLAMA, "bitnet-b1.58": BITNET, "bitnet-25": BITNET, "qwen3": QWEN3}
#: The numbers of types that the gguf package has no name for, or had none for.
NUMBERS = {"I2_S": 36, "Q1_0": 41, "Q2_0": 42, "Q2_0 of 128": 42, "IQ1_BN": 134, "IQ2_BN": 135,
           "PQ2_0": 142, "PTQ1_0": 143}  # fmt: skip

#: What tokenizers trip over.
TEXTS = [
    "",
    " ",
    "a",
    "Hello, world!",
    "  two  spaces   three    four",
    "line\nline\n\nline\r\n\t\ttabs \t mixed \n ",
    "I'm you're he'll we'd they've it's don't I'M YOU'RE HE'LL",
    "0 12 345 6789 12345678 3.14159 1,000,000 ٣٤٥ ⅷ ²",
    "naïve café Grüße Ωμέγα Привет мир 你好世界 こんにちは 안녕하세요 مرحبا",
    "नमस्ते दुनिया, ไทย ภาษา",
    "emoji 😀👍🏽 👩‍👩‍👧‍👦 flags 🇩🇪 zero\u200bwidth nbsp\u00a0here",
    "def f(x: int) -> list[str]:\n    return [f'{i:>3}' for i in range(x)]  # why?\n",
    "<|begin_of_text|>inside<|end_of_text|> <|begin_of_text|",
    "!?.,;:#$%&*()[]{}<>=+-_^~|`\\/@\"'",
    "x" * 300,
    " \u3000\u2003wide\u2028separators\x00\x01\x7f",
    "\u017f's K'\u017f",
]


@dataclass
class Values:
    """linear: trits (outputs, inputs) and a scale, by layer and name; norms, biases: the same."""

    linear: dict[tuple[int, str], tuple[Any, Any]]
    norms: dict[tuple[int, str], Any]
    norm: Any
    embedding: Any
    head: Any
    biases: dict[tuple[int, str], Any] = field(default_factory=dict)
    vectors: dict[tuple[int, str], Any] = field(default_factory=dict)


def random_values(config: Config, seed: int = 0) -> Values:
    """Half of the trits of each matrix are 0, so that absmean of 2 * scale * trits gives back the
    trits and the scale exactly; scales and embeddings are exact in float16."""
    random = np.random.default_rng(seed)

    def half(size: Any) -> Any:
        return random.standard_normal(size).astype(np.float16).astype(np.float32)

    def norm(size: Any) -> Any:
        return random.uniform(0.5, 2, size).astype(np.float16).astype(np.float32)

    linear, norms, biases, vectors = {}, {}, {}, {}
    for layer in range(config.layers):
        for name, (rows, columns) in config.linear_shapes(layer).items():
            trits = np.zeros(rows * columns, np.int8)
            trits[: rows * columns // 2] = random.choice([-1, 1], rows * columns // 2)
            scale = np.float32(np.float16(random.uniform(0.5, 2) / np.sqrt(columns)))
            linear[layer, name] = random.permutation(trits).reshape(rows, columns), scale
        for name, size in config.norm_sizes(layer).items():
            norms[layer, name] = norm(size)
        for name, size in config.bias_sizes(layer).items():
            biases[layer, name] = half(size)
        for name, shape in config.vector_shapes(layer).items():
            vectors[layer, name] = norm(shape) if name == "forget_rate" else half(shape) / 4
    table = (config.vocabulary, config.hidden)
    embedding = half(table)
    head = embedding if config.tied else half(table)
    return Values(linear, norms, norm(config.hidden), embedding, head, biases, vectors)


def write_folder(folder: Path, config: Config, values: Values) -> Path:
    """A Hugging Face folder with float master weights; gives the folder."""
    form = config.trunk.hugging_face[0]
    raw = {
        "architectures": [form.program],
        "hidden_act": config.activation,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "eos_token_id": list(config.eos),
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online",
        },
    }
    tensors = {form.embedding: values.embedding, form.final_norm: values.norm}
    if not config.tied:
        tensors[form.head] = values.head
    for (layer, name), (trits, scale) in values.linear.items():
        tensors[form.matrix(layer, name)] = trits * (2 * scale)
    for (layer, name), norm in values.norms.items():
        tensors[form.norm(layer, name)[0]] = norm
    return checkpoints.write(folder, raw, tensors)


def write_gguf(
    path: Path,
    values: Values,
    architecture: str = "llama",
    kind: str = "TQ2_0",
    *,
    embedding: str = "F16",
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
    config: Config | None = None,
    tokenizer: dict[str, Any] | None = None,
) -> Path:
    """A file whose linear layers are of a kind; gives its path.

    embedding: the kind of embedding and head. metadata: keys to add or replace, or to leave out
    (None). tensors: arrays to add or replace, as they are or with a kind, or to leave out (None).
    """
    config = config or {**ARCHITECTURES, **TRUNKS}[architecture]
    writer = GGUFWriter(path, architecture)
    for key, value in {
        **_metadata(config, architecture),
        **(tokenizer or {}),
        **(metadata or {}),
    }.items():
        _add_value(writer, key, value)
    _, form = find_gguf({"general.architecture": architecture})
    arrays: dict[str, tuple[Any, str]] = {
        form.embedding: (values.embedding, embedding),
        form.final_norm: (values.norm, "F32"),
    }
    if not config.tied:
        arrays[form.head] = (values.head, embedding)
    for (layer, name), (trits, scale) in values.linear.items():
        floats = products(trits, np.asarray(scale))
        if form.interleaved and name in ("q", "k"):
            floats = neighbours(floats, config.head_dim)
        arrays[form.matrix(layer, name)] = (floats, kind)
    for (layer, name), norm in values.norms.items():
        arrays[form.norm(layer, name)] = (norm, "F32")
    for (layer, name), bias in values.biases.items():
        if form.interleaved and name in ("q", "k"):
            bias = neighbours(bias[:, None], config.head_dim)[:, 0]
        arrays[form.bias(layer, name)] = (bias, "F32")
    for (layer, name), vector in values.vectors.items():
        vector = -vector if name == "forget_rate" else vector.T if name == "taps" else vector
        arrays[form.vector(layer, name)] = (vector if min(vector.shape) > 1 else vector[0], "F32")
    for name, array in (tensors or {}).items():
        arrays[name] = array if isinstance(array, tuple) else (array, "")
    for name, (array, each) in arrays.items():
        if array is not None:
            add_tensor(writer, name, array, each)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def neighbours(rows: Any, head_dim: int) -> Any:
    """Rows of heads as llama.cpp's converter orders them: those that rope rotates against each
    other lie side by side."""
    return rows.reshape(-1, 2, head_dim // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def add_tensor(writer: GGUFWriter, name: str, array: Any, kind: str) -> None:
    """Floats, or bytes that are blocks already, as one of ggml's types; without one as they are."""
    if not kind:
        writer.add_tensor(name, array)
    elif kind in NUMBERS:
        # The package cannot write it: as bytes, with the type changed before it is written.
        data, shape = array, array.shape
        if array.dtype == np.uint8:
            weights, size = {"Q1_0": (128, 18), "Q2_0": (64, 18)}[kind]
            shape = len(array), array.shape[1] // size * weights
        else:
            data = ternary_bytes(array, kind)
        writer.add_tensor(name, data, shape, Type.I8)
        written: Any = writer.tensors[-1][name]
        written.dtype = NUMBERS[kind]
    else:
        data = array if array.dtype == np.uint8 else quants.quantize(array, Type[kind])
        writer.add_tensor(name, data, raw_dtype=Type[kind])


def random_blocks(kind: str, rows: int, columns: int) -> Any:
    """Blocks of a type of `gguf_levels`, uint8 (rows, blocks, bytes): all codes, and scales that
    are finite, of both signs where they may be, some 0."""
    weights, size = GGML_QUANT_SIZES[Type[kind]]
    random = np.random.default_rng((rows, columns))
    data = random.integers(0, 256, (rows, columns // weights, size), np.uint8)
    if kind == "MXFP4":
        data[:, :, 0] = random.integers(110, 130, data.shape[:2])
    elif kind == "NVFP4":
        data[:, :, :4] = random.integers(0, 0x7F, (*data.shape[:2], 4))
    else:
        scales = random.standard_normal(data.shape[:2]).astype(np.float16)
        scales[random.random(scales.shape) < 0.1] = 0
        data[:, :, :2] = scales[..., None].view(np.uint8)
    if kind == "Q8_0":
        data[:, :, 2:][data[:, :, 2:] == 0x80] = 0x81
    return data


def ternary_bytes(floats: Any, kind: str) -> Any:
    """A matrix of trits times scales, one a block or, for some types, a row or all, as bytes."""
    trits = np.sign(floats).astype(np.int8)
    if kind == "I2_S":
        tail = np.zeros(32, np.uint8)
        tail[:4] = np.frombuffer(np.abs(floats).max().astype(np.float32).tobytes(), np.uint8)
        quarters = trits.reshape(-1, 4, 32)[:, ::-1]
        return np.concatenate([in_quarters(quarters.reshape(-1, 128)).reshape(-1), tail])
    rows = len(floats)
    if kind in ("IQ1_BN", "IQ2_BN"):
        wide = np.float32 if kind == "IQ2_BN" else np.float16
        prefix = np.abs(floats).max(axis=1, keepdims=True).astype(wide).view(np.uint8)
        blocks = trits.reshape(-1, 64)
        codes = in_quarters(blocks) if kind == "IQ2_BN" else iq1_bn_bytes(blocks)
        return np.hstack([prefix, codes.reshape(rows, -1)])
    width = 64 if kind == "Q2_0" else 128
    scale = np.abs(floats).reshape(-1, width).max(axis=1, keepdims=True)
    scale = scale.astype(np.float16).view(np.uint8)
    blocks = trits.reshape(-1, width)
    if kind == "PTQ1_0":
        stages = (blocks[:, :80], 16, 5), (blocks[:, 80:120], 8, 5), (blocks[:, 120:], 2, 4)
        parts = [in_base3(part.reshape(-1, count, step)) for part, step, count in stages]
        data = np.hstack([*parts, scale])
    elif kind == "Q1_0":
        data = np.hstack([scale, np.packbits(blocks > 0, axis=1, bitorder="little")])
    else:
        codes = (blocks + 1).astype(np.uint8).reshape(len(blocks), -1, 4)
        data = np.hstack([scale, (codes << np.arange(0, 8, 2, dtype=np.uint8)).sum(2, np.uint8)])
    return data.reshape(rows, -1)


def in_quarters(blocks: Any) -> Any:
    """Two bits a trit, the first quarter of a block in the lowest bits."""
    codes = (blocks + 1).astype(np.uint8).reshape(len(blocks), 4, -1)
    return codes[:, 0] | codes[:, 1] << 2 | codes[:, 2] << 4 | codes[:, 3] << 6


def in_base3(digits: Any) -> Any:
    """Bytes of trits (blocks, digits, bytes), the first the most significant of five."""
    weights = 3 ** np.arange(4, -1, -1)[: digits.shape[1]]
    value = ((digits.astype(int) + 1) * weights[:, None]).sum(axis=1)
    return (-(-value * 256 // 243)).astype(np.uint8)


def iq1_bn_bytes(blocks: Any) -> Any:
    """13 bytes a block: of each 16 trits 5, 5 and 5 a byte, the last ones in a byte of their own;
    the first of a byte is the least significant."""
    fives = blocks.reshape(-1, 4, 16)[:, :, :15].reshape(-1, 5)[:, ::-1, None]
    last = np.zeros((len(blocks), 5), np.int8) - 1
    last[:, 1:] = blocks[:, 15::16][:, ::-1]
    return np.hstack([in_base3(fives).reshape(-1, 12), in_base3(last[:, :, None])])


def sentence_piece() -> tuple[Tokenizer, dict[str, Any]]:
    """A tokenizer like LLaMA 2's, trained on a source file, and the keys of its vocabulary."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # Words must not be merged across spaces while training only.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    special = ["<unk>", "<s>", "</s>", *byte_tokens]
    trainer = BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    text = Path(__file__).with_name("code.txt").read_text("utf-8")
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return tokenizer, {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def tokenizer_metadata(path: Path, pre: str) -> dict[str, Any]:
    """The keys of a byte-level tokenizer.json, as llama.cpp's converter writes them."""
    raw = json.loads(path.read_text("utf-8"))
    tokens = sorted(raw["model"]["vocab"], key=raw["model"]["vocab"].__getitem__)
    kinds = [1] * len(tokens)
    for added in raw["added_tokens"]:
        kinds[added["id"]] = 3 if added["special"] else 4
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in raw["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
    }


def _metadata(config: Config, architecture: str) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if architecture == "minicpm":
        more = {"embedding_scale": config.embedding_scale, "residual_scale": config.residual_scale,
                "logit_scale": 1 / config.logit_scale}  # fmt: skip
    if config.windows:
        more = {"attention.sliding_window": max(config.windows),
                "attention.sliding_window_pattern": config.windows.index(0) + 1}  # fmt: skip
    if config.delta_layers:
        more = {"ssm.conv_kernel": 4, "ssm.state_size": config.delta_key_dim,
                "ssm.inner_size": config.delta_heads * config.delta_value_dim,
                "ssm.time_step_rank": config.delta_heads, "full_attention_interval": 4,
                "ssm.group_count": config.delta_key_heads,
                "rope.dimension_sections": [3, 3, 2, 0]}  # fmt: skip
    return {
        f"{architecture}.{key}": value
        for key, value in {
            "block_count": config.layers,
            "context_length": config.context,
            "embedding_length": config.hidden,
            "feed_forward_length": config.ffn,
            "attention.head_count": config.heads,
            "attention.head_count_kv": config.kv_heads,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "attention.layer_norm_rms_epsilon": config.epsilon,
            "rope.dimension_count": config.rotated,
            "rope.freq_base": config.rope_theta,
            "vocab_size": config.vocabulary,
            **more,
        }.items()
    }


def _add_value(writer: GGUFWriter, key: str, value: Any) -> None:
    """bool, int as uint32, float as float32, str, or a list of one of them; None for nothing."""
    if isinstance(value, list):
        writer.add_array(key, value)
    elif value is not None:
        kinds: dict[type, Any] = {
            bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
            str: writer.add_string,
        }  # fmt: skip
        writer.kv_data[0].pop(key, None)
        kinds[type(value)](key, value)
