"""Random models of any layout in GGUF, for other engines: sizes are real, values repeat.

The architecture fixes what llama.cpp computes between the linear layers. It is "llama" where it is
timed: SiLU and no norms before the output and down projections, whatever the layout says of them,
and no vocabulary but a number of tokens. Models to keep have those norms if the layout has them, as
"bitnet", which is SiLU in llama.cpp, too; and a tokenizer.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from bench.models import byte_tokenizer
from ternops.decoder import Config

#: Types of the linear layers, and of the embedding and the head, as ggml names them.
LINEAR_TYPES = ("tq1_0", "tq2_0", "q4_0", "f16")
HEAD_TYPES = ("f16", "q8_0", "q6_k", "q4_0")

#: And of what is timed alone: ternary with a scale for 64 weights, of which the package knows
#: nothing.
_Q2_0 = "q2_0"

#: Random rows before they repeat.
_ROWS = 64
#: The architecture of what is timed.
_TIMED = "llama"


class _Kind(NamedTuple):
    """ggml's type: its number, and the weights and bytes of a block."""

    number: Type
    name: str
    weights: int
    size: int


def _kind(name: str) -> _Kind:
    if name == _Q2_0:
        # What the writer stores is a number.
        return _Kind(cast("Type", 42), name, 64, 18)
    kind = Type[name.upper()]
    return _Kind(kind, name, *gguf.GGML_QUANT_SIZES[kind])


@dataclass(frozen=True)
class _Tensor:
    """rows is 0 for a vector, of ones."""

    kind: _Kind
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns) if self.rows else (self.columns,)

    @property
    def nbytes(self) -> int:
        return max(self.rows, 1) * self.columns // self.kind.weights * self.kind.size


def for_llama_cpp(config: Config, linear: str, head: str) -> tuple[Config, float]:
    """The layout that llama.cpp can hold in these types, and what it reads relative to `config`.

    ggml's blocks lie along a row: 256 weights in tq1_0, tq2_0 and q6_k, 32 in q4_0 and q8_0. Each
    row length that is no multiple of its block is rounded up, for the attention's output by longer
    heads. The ratio is that of the bytes of weights read for a token, at least 1: a rate measured
    with the new layout, times the ratio, is what it would be without the padding.
    """
    block, head_block = _sizes(linear)[0], _sizes(head)[0]
    step = block // math.gcd(block, config.heads)
    rounded = replace(
        config,
        hidden=_up(config.hidden, math.lcm(block, head_block)),
        ffn=_up(config.ffn, block),
        head_dim=_up(config.head_dim, step),
    )
    return rounded, bytes_read(rounded, linear, head) / bytes_read(config, linear, head)


@contextmanager
def random_gguf(folder: Path, config: Config, linear: str, head: str) -> Iterator[Path]:
    """A random model in a new file of a folder, removed at the end of the block.

    linear: one of LINEAR_TYPES, for all linear layers. head: one of HEAD_TYPES, for the embedding
    and, unless `config.tied`, the separate head; either may be "q2_0" as well. Norms are float32.
    Memory: 64 rows of a type and a row length, which are all that a tensor consists of.

    Raises ValueError for an unknown type and a row length that is no multiple of its block, OSError
    if the folder has no room.
    """
    plain = replace(config, architecture=_TIMED)
    tensors = _tensors(plain, linear, head, also=(_Q2_0,))
    needed, free = sum(each.nbytes for each in tensors.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"folder: {str(folder)!r} has {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f} GB"
        )
    path = folder / f"random-{linear}-{head}.gguf"
    try:
        with closing(gguf.GGUFWriter(path, plain.trunk.gguf[0].name)) as writer:
            writer.add_tokenizer_model("no_vocab")
            _write(writer, config, tensors)
        yield path
    finally:
        path.unlink(missing_ok=True)


def write_gguf(
    path: Path, config: Config, linear: str, head: str, name: str, advance: Callable[[int], object]
) -> None:
    """Write a random model of that name, with a tokenizer of bytes.

    linear, head: as in `random_gguf`, whose ValueErrors and memory these are. advance: called with
    the bytes written, tensor by tensor.
    """
    tensors = _tensors(config, linear, head)
    form = config.trunk.gguf[0]
    with closing(gguf.GGUFWriter(path, form.name)) as writer:
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{linear.upper()}"])
        adders: dict[type, Callable[[str, Any], None]] = {
            bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string,
            list: writer.add_array,
        }  # fmt: skip
        if not form.activation:  # the name does not tell
            writer.add_string(f"{form.name}.hidden_activation", "silu")
        for key, value in byte_tokenizer.gguf_keys(config.vocabulary).items():
            adders[type(value)](key, value)
        _write(writer, config, tensors, advance)


def tensor_bytes(config: Config, linear: str, head: str) -> int:
    """Of a file that `write_gguf` writes, header and tokenizer aside."""
    return sum(each.nbytes for each in _tensors(config, linear, head).values())


def _tensors(
    config: Config, linear: str, head: str, also: tuple[str, ...] = ()
) -> dict[str, _Tensor]:
    """All tensors by name, in the order of the file; ValueError for what cannot be."""
    for what, kind, kinds in (("linear", linear, LINEAR_TYPES), ("head", head, HEAD_TYPES)):
        if kind not in (*kinds, *also):
            raise ValueError(f"{what}: {kind!r}, expected {', '.join((*kinds, *also))}")
    table = _Tensor(_kind(head), config.vocabulary, config.hidden)
    form = config.trunk.gguf[0]
    tensors = {form.embedding: table}
    for layer in range(config.layers):
        for name, (rows, columns) in config.linear_shapes(layer).items():
            tensor = _Tensor(_kind(linear), rows, columns)
            tensors[form.matrix(layer, name)] = tensor
        for name, size in config.norm_sizes(layer).items():
            tensors[form.norm(layer, name)] = _Tensor(_kind("f32"), 0, size)
    tensors[form.final_norm] = _Tensor(_kind("f32"), 0, config.hidden)
    if not config.tied:
        tensors[form.head] = table
    for name, tensor in tensors.items():
        block = tensor.kind.weights
        if tensor.columns % block:
            raise ValueError(
                f"config: rows of {name} have {tensor.columns} weights, expected a multiple of "
                f"{block} for {tensor.kind.name}"
            )
    return tensors


def _write(
    writer: gguf.GGUFWriter, config: Config, tensors: dict[str, _Tensor],
    advance: Callable[[int], object] = lambda nbytes: None,
) -> None:  # fmt: skip
    """All but the tokenizer."""
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocabulary)
    writer.add_context_length(config.context)
    writer.add_block_count(config.layers)
    writer.add_embedding_length(config.hidden)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.epsilon)
    for name, tensor in tensors.items():
        # The type of the elements does not matter beside the raw one, unless it is uint8.
        number = tensor.kind.number
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), tensor.nbytes, number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors.values():
        writer.write_tensor_data(_data(tensor))
        advance(tensor.nbytes)


def _data(tensor: _Tensor) -> npt.NDArray[Any]:
    """A tensor's bytes, as one group of rows that repeats without taking memory again."""
    if not tensor.rows:
        return np.ones(tensor.columns, np.float32)
    group = math.gcd(tensor.rows, _ROWS)
    rows = _random_rows(tensor.kind, tensor.columns)[:group]
    # One element of a void type: what is not contiguous is written element by element.
    return np.broadcast_to(rows.reshape(-1).view(f"V{rows.nbytes}"), tensor.rows // group)


@cache
def _random_rows(kind: _Kind, columns: int) -> npt.NDArray[np.uint8]:
    """Weights of a deviation near 1/sqrt(columns), which keeps activations in range."""
    random = np.random.default_rng(0)
    if kind.number == Type.Q6_K:  # which gguf cannot quantize to
        return _random_q6_k(random, columns)
    if kind.name == _Q2_0:
        return _random_q2_0(random, columns)
    weights = random.integers(-1, 2, (_ROWS, columns)).astype(np.float32)
    rows = gguf.quantize(weights / np.float32(math.sqrt(columns)), kind.number)
    return np.ascontiguousarray(rows).view(np.uint8)


def _random_q6_k(random: np.random.Generator, columns: int) -> npt.NDArray[np.uint8]:
    """Blocks of 256 weights q * scale * d: q -32 to 31, a scale for each 16, a float16 d."""
    block = np.dtype([("q", "u1", 192), ("scales", "i1", 16), ("d", "<f2")])
    rows = np.empty((_ROWS, columns // 256), block)
    rows["q"] = random.integers(0, 256, rows["q"].shape)
    rows["scales"] = random.integers(-8, 9, rows["scales"].shape)
    rows["d"] = 0.01 / math.sqrt(columns)
    return rows.view(np.uint8)


def _random_q2_0(random: np.random.Generator, columns: int) -> npt.NDArray[np.uint8]:
    """Blocks of 64 weights (q - 1) * d: a float16 d, and four q of 0 to 2 a byte."""
    block = np.dtype([("d", "<f2"), ("q", "u1", 16)])
    rows = np.empty((_ROWS, columns // 64), block)
    codes = random.integers(0, 3, (*rows["q"].shape, 4), np.uint8)
    rows["q"] = np.bitwise_or.reduce(codes << np.arange(0, 8, 2, dtype=np.uint8), axis=-1)
    rows["d"] = random.uniform(0.5, 1.5, rows["d"].shape) / math.sqrt(columns)
    return rows.view(np.uint8)


def _sizes(kind: str) -> tuple[int, int]:
    """Weights and bytes of a block."""
    return _kind(kind)[2:]


def bytes_read(config: Config, linear: str, head: str) -> float:
    """Bytes of weights a token reads, as if blocks could be cut: linear layers and head."""
    (block, size), (head_block, head_size) = _sizes(linear), _sizes(head)
    table = config.vocabulary * config.hidden
    return config.linear_weights / block * size + table / head_block * head_size


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
