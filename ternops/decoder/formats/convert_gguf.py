"""Writing a GGUF file that llama.cpp reads: tensor by tensor, the header last."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import Gguf as Form
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.gguf import gguf_package, neighbours
from ternops.decoder.formats.gguf_delta import file_vector, moved_trits
from ternops.decoder.formats.gguf_encode import encode
from ternops.decoder.formats.gguf_keys import add_values, config_keys, form_of, rope_tensors
from ternops.decoder.formats.gguf_tokenizer_keys import tokenizer_keys
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.formats.paths import locate
from ternops.decoder.formats.pooling import GGUF_MODES
from ternops.decoder.formats.sampling import KEYS, recommended
from ternops.decoder.formats.scales import Floats, Trits
from ternops.decoder.weights import HalfMatrix
from ternops.encodings.base3 import BASE3
from ternops.encodings.two_bit import TWO_BIT
from ternops.files import behind_links, replaced
from ternops.matrix import TernaryMatrix

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

_F32, _F16, _BF16 = 0, 1, 30
_ALIGNMENT = 32
_COPIED = 1 << 24  # bytes at a time
#: llama.cpp's number of what a file mostly consists of, by its type of block.
_FILE_TYPES = {_F16: 1, 34: 36, 35: 37, 41: 40}


class _Tensor(NamedTuple):
    """number: of its type; shape: rows first."""

    name: str
    number: int
    shape: tuple[int, ...]
    data: npt.NDArray[Any]


def convert_to_gguf(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    encoding: str = TWO_BIT.name,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    quantize: str | None = None,
) -> None:
    """Write all of a checkpoint to one GGUF file, whose linear layers have the same trits.

    source, quantize: as `open_checkpoint` takes them. target: the file, which appears whole or not
    at all; while it is written, its tensors take their room twice. encoding: "base3" for TQ1_0 or
    "two_bit" for TQ2_0, where the scales allow their blocks of 256. progress: called with the steps
    done and their number; say: with a line about what is not as in the source.
    Raises FileNotFoundError and ValueError for bad arguments and damaged sources.
    """
    if encoding not in (BASE3.name, TWO_BIT.name):
        raise ValueError(f"encoding={encoding!r}: expected 'base3' or 'two_bit' for GGUF")
    source = locate(source)
    checkpoint = open_checkpoint(source, quantize=quantize)
    if behind_links(target).exists() and os.path.samefile(source, target):
        raise ValueError(f"{str(target)!r} is what is to be read, expected another file")
    form = form_of(checkpoint.config)
    keys = {**config_keys(checkpoint.config, form), **_text_keys(checkpoint, say)}
    if (pooling := checkpoint.pooling()).source:
        kinds = {mode: number for number, mode in GGUF_MODES.items()}
        if pooling.mode in kinds:
            keys[f"{form.name}.pooling_type"] = kinds[pooling.mode]
        else:
            say(f"without pooling {pooling.mode!r}, of which there is nothing here")
    for name, value in recommended(checkpoint.sampling()).items():
        keys[KEYS[name]] = value if name == "top_k" else float(value)
    rounded: list[str] = []
    with replaced(target) as path, tempfile.TemporaryFile(dir=path.parent) as file:
        writer = gguf_package().GGUFWriter(path, form.name)
        numbers = []
        for tensor in _tensors(checkpoint, form, encoding == BASE3.name, rounded, progress):
            data = np.ascontiguousarray(tensor.data)
            file.write(data.data)
            file.write(bytes(-data.nbytes % _ALIGNMENT))
            # A dtype that is not uint8 leaves the shape as it is.
            kind = cast("GGMLQuantizationType", tensor.number)
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), data.nbytes, kind
            )
            numbers.append(tensor.number)
        add_values(writer, {**keys, "general.file_type": _file_type(numbers)})
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        file.seek(0)
        with open(path, "ab") as whole:
            whole.write(bytes(-whole.tell() % _ALIGNMENT))
            shutil.copyfileobj(file, whole, _COPIED)
    if rounded:
        say(f"scales of {len(rounded)} matrices were rounded to float16 ({rounded[0]}, ...)")


def _file_type(numbers: list[int]) -> int:
    """llama.cpp's number of the type that most matrices have."""
    known = [number for number in numbers if number in _FILE_TYPES and number != _F16]
    return _FILE_TYPES[max(set(known), key=known.count)] if known else _FILE_TYPES[_F16]


def _text_keys(checkpoint: Checkpoint, say: Callable[[str], None]) -> dict[str, Any]:
    """The tokenizer and the chat template."""
    config = checkpoint.config
    try:
        tokenizer = checkpoint.tokenizer()
    except FileNotFoundError as error:
        say(f"without a tokenizer: {error}")
        return {"tokenizer.ggml.model": "no_vocab"}
    special = checkpoint.special_tokens()
    keys = tokenizer_keys(tokenizer, special, config.eos, config.vocabulary)
    if template := checkpoint.chat_template():
        keys["tokenizer.chat_template"] = template
    return keys


def _tensors(
    checkpoint: Checkpoint,
    form: Form,
    base3: bool,
    rounded: list[str],
    progress: Callable[[int, int], None] | None,
) -> Iterator[_Tensor]:
    """All of them in the order of the file; `rounded` gets the names of those that are not exact"""
    config = checkpoint.config
    yield from _table(form.embedding, checkpoint.embedding(), rounded)
    if not config.tied:
        yield from _table(form.head, checkpoint.head(), rounded)
    yield _floats(form.final_norm, checkpoint.final_norm())
    for name, factors in rope_tensors(config, form).items():
        yield _floats(name, factors)
    for layer in range(config.layers):
        if progress:
            progress(layer, config.layers)
        for name in config.linear_shapes(layer):
            yield from _matrix(checkpoint, form, layer, name, base3, rounded)
        for name in config.norm_sizes(layer):
            yield _floats(form.norm(layer, name), checkpoint.norm(layer, name))
        for name in config.vector_shapes(layer):
            yield _floats(form.vector(layer, name), file_vector(checkpoint, layer, name))
        for name in config.bias_sizes(layer):
            bias = checkpoint.bias(layer, name)
            if name in ("q", "k") and form.interleaved:
                bias = bias[neighbours(len(bias), config.head_dim)]
            yield _floats(form.bias(layer, name), bias)
    if progress:
        progress(config.layers, config.layers)


def _matrix(
    checkpoint: Checkpoint, form: Form, layer: int, name: str, base3: bool, rounded: list[str]
) -> Iterator[_Tensor]:
    trits, scale = moved_trits(checkpoint, layer, name)
    if trits.min() < -1 or trits.max() > 1:
        raise ValueError(
            f"checkpoint: {name} in layer {layer} has more levels than -1, 0 and 1, expected a "
            "ternary model"
        )
    if name in ("q", "k") and form.interleaved:
        order = neighbours(len(trits), checkpoint.config.head_dim)
        trits, scale = trits[order], scale if scale.ndim == 0 else scale[order]
    yield from _encoded(form.matrix(layer, name), trits, scale, base3, form.uses_scales, rounded)


def _encoded(
    tensor: str, trits: Trits, scale: Floats, base3: bool, with_factor: bool, rounded: list[str]
) -> Iterator[_Tensor]:
    try:
        found = encode(trits, scale, base3, with_factor)
    except ValueError as error:
        raise ValueError(f"checkpoint: {tensor} {error}") from None
    yield _Tensor(tensor, found.number, trits.shape, found.data)
    if found.factor is not None:
        factor = np.array([found.factor], np.float32)
        yield _floats(f"{tensor.removesuffix('weight')}scale", factor)
    if found.rounded:
        rounded.append(tensor)


def _table(name: str, matrix: HalfMatrix | TernaryMatrix, rounded: list[str]) -> Iterator[_Tensor]:
    """Two bytes a weight, or what holds the scales; llama.cpp uses no factor beside a table."""
    if isinstance(matrix, TernaryMatrix):
        scale = np.asarray(matrix.scale, np.float32)
        yield from _encoded(name, matrix.to_trits(), scale, False, False, rounded)
    else:
        number = _BF16 if matrix.is_bf16 else _F16
        yield _Tensor(name, number, matrix.shape, matrix.bits[:, : matrix.columns])


def _floats(name: str, vector: npt.NDArray[np.float32]) -> _Tensor:
    return _Tensor(name, _F32, vector.shape, vector.astype(np.float32))
