"""Files of models: what opens is read to the end, and decodes to numbers."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ternops.bitdelta import delta as signs_of
from ternops.decoder import Model, Session, open_checkpoint
from ternops.decoder.deltas import Delta, fingerprint_of
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_stack import stack_model
from ternops.decoder.formats.delta_file import read_delta, write_delta
from ternops.decoder.formats.loading import load_weights
from ternops.decoder.formats.packed_header import header_checksum
from ternops.decoder.session_file import load_session, save_session
from tests.fuzz.mutations import of_bytes, of_json, of_safetensors, seal_content
from tests.fuzz.target import Finding, Target, in_one_line, new_folder
from tests.helpers import checkpoints, gguf_files

#: Weights of a model that is decoded, and not only read: one token of it takes no time.
_FEW = 1 << 20
_folder = cache(new_folder)


def _open(path: Path) -> None:
    """Read all of a model, and decode a few tokens."""
    with warnings.catch_warnings(), in_one_line():
        warnings.simplefilter("ignore")
        checkpoint = open_checkpoint(path, quantize="absmean")
        checkpoint.chat_template()
        checkpoint.special_tokens()
        checkpoint.sampling()
        checkpoint.pooling()
        weights = load_weights(checkpoint)
        if checkpoint.config.linear_weights < _FEW and checkpoint.config.context < 10_000:
            model = Model(weights, threads=1)
            logits = model.logits([0, min(1, model.config.vocabulary - 1)])
            if logits.shape != (2, model.config.vocabulary):
                raise Finding(f"logits {logits.shape}")
        with contextlib.suppress(FileNotFoundError):
            checkpoint.tokenizer()


# GGUF


@cache
def _gguf_seeds() -> tuple[bytes, ...]:
    folder, values = _folder(), gguf_files.random_values(gguf_files.LLAMA)
    _, keys = gguf_files.sentence_piece()
    seeds = []
    for kind in ("TQ2_0", "TQ1_0", "I2_S", "Q4_0", "Q4_K"):
        path = folder / f"{kind}.gguf"
        words = keys if kind == "TQ2_0" else None
        try:
            gguf_files.write_gguf(path, values, kind=kind, tokenizer=words)
        except Exception:
            continue
        seeds.append(path.read_bytes())
    return tuple(seeds)


def _of_gguf(data: bytes, random: Random) -> bytes:
    """Mostly what is before the tensors."""
    head = data[: random.choice((200, 2000, 6000, len(data)))]
    return of_bytes(head, random, 1 << 22) + data[len(head) :]


def _gguf(data: bytes) -> bool:
    path = _folder() / "model.gguf"
    path.write_bytes(data)
    _open(path)
    return True


# Folders


@cache
def _source() -> Path:
    return checkpoints.write(_folder() / "source")


def _safetensors_seeds() -> Sequence[bytes]:
    values, _ = checkpoints.quantized(np.random.default_rng(0), 0.5)
    other = checkpoints.write(_folder() / "quantized", checkpoints.quantization("online"), values)
    return [(path / "model.safetensors").read_bytes() for path in (_source(), other)]


def _safetensors(data: bytes) -> bool:
    folder = checkpoints.write(_folder() / "weights")
    (folder / "model.safetensors").write_bytes(data)
    _open(folder)
    return True


def _config_seeds() -> Sequence[bytes]:
    more = {
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 32.0, "beta_slow": 1.0,
                         "original_max_position_embeddings": 20},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "sliding_window": 7, "layer_types": ["full_attention", "sliding_attention"],
        "model_type": "bitnet", "torch_dtype": "bfloat16", "attention_bias": False,
        "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]},
    }  # fmt: skip
    llama = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "model_type": "llama"}
    seeds = [checkpoints.CONFIG, {**checkpoints.CONFIG, **more}, {**checkpoints.CONFIG, **llama},
             *({**checkpoints.CONFIG, key: value} for key, value in more.items())]  # fmt: skip
    return [json.dumps(each).encode() for each in seeds]


def _config(data: bytes) -> bool:
    folder = _folder() / "configured"
    if not folder.is_dir():
        shutil.copytree(_source(), folder)
    (folder / "config.json").write_bytes(data)
    _open(folder)
    return True


# What this package writes


def _seal_header(header: dict[str, Any], data: bytes) -> None:
    header["__metadata__"]["header_crc32"] = header_checksum(header)


@cache
def _packed_path() -> Path:
    path = _folder() / "packed.safetensors"
    convert(_source(), path, "two_bit", quantize="absmean")
    return path


def _packed_seeds() -> Sequence[bytes]:
    other = _folder() / "base3.safetensors"
    convert(_source(), other, "base3", quantize="absmean")
    return [_packed_path().read_bytes(), other.read_bytes()]


def _packed(data: bytes) -> bool:
    path = _folder() / "model.safetensors"
    path.unlink(missing_ok=True)  # another one may be mapped
    path.write_bytes(data)
    _open(path)
    return True


def _stack_seeds() -> Sequence[bytes]:
    path = _folder() / "stack.safetensors"
    stack_model(open_checkpoint(_source()), _source(), path)
    return [path.read_bytes()]


@cache
def _base() -> Model:
    return Model.from_pretrained(_packed_path(), threads=1)


def _delta_seeds() -> Sequence[bytes]:
    weights, random, path = _base().weights, np.random.default_rng(0), _folder() / "delta"
    layers = []
    for layer in weights.layers:
        layers.append({
            name: signs_of(
                each, each.to_dense() + random.normal(0, 1, each.shape).astype(np.float32)
            ).signs
            for name, each in layer.linear.items()
        })  # fmt: skip
    write_delta(path, weights.config, Delta(layers, fingerprint_of(weights)))
    return [path.read_bytes()]


def _delta(data: bytes) -> bool:
    path = _folder() / "mutated.delta"
    path.write_bytes(data)
    with in_one_line(ValueError):
        read_delta(path, _base().config)
    return True


def _session_seeds() -> Sequence[bytes]:
    session, path = Session(_base()), _folder() / "session"
    session.extend([1, 2, 3, 4], 1)
    save_session(session, path, [{"role": "user", "content": "a"}])
    return [path.read_bytes()]


def _session(data: bytes) -> bool:
    path, session = _folder() / "mutated.session", Session(_base())
    path.write_bytes(data)
    with in_one_line(ValueError):
        messages = load_session(session, path)
        json.dumps(messages)
    if session.position < session.model.config.context:
        session.step(1)
    return True


TARGETS = {
    each.name: each
    for each in (
        Target("gguf", _gguf_seeds, _of_gguf, _gguf),
        Target("safetensors", _safetensors_seeds, of_safetensors(), _safetensors),
        Target("config", _config_seeds, of_json, _config),
        Target("packed", _packed_seeds, of_safetensors(_seal_header), _packed),
        Target("stack", _stack_seeds, of_safetensors(_seal_header), _packed),
        Target("delta", _delta_seeds, of_safetensors(seal_content), _delta),
        Target("session", _session_seeds, of_safetensors(seal_content), _session),
    )
}
