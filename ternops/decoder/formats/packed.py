"""The packed model file: all that a decoder needs in one safetensors file, used where it lies.

The metadata are "format", "version", "encoding", "encodings" (JSON: those of the matrices that have
another, by their names, with no values that the first has not), "config" (the fields of Config as
JSON; those that a file lacks have their defaults; in version 1 with "sub_norms", true for a BitNet,
in place of "architecture"), "special_tokens" (JSON), "chat_template" where there is one, "pooling"
(the fields of Pooling as JSON) where a file told of it, "crc32", hexadecimal checksums of the
tensors in their order, and "header_crc32", that of the rest of the header. The tensors are

    tokenizer                U8   a tokenizer.json, if there is one, filled up with spaces
    embedding, head          F16 or BF16 (vocabulary, columns padded to whole cache lines); head
                             only where it is not the embedding; or, where they are ternary,
    embedding.packed         U8   as two_bit, and embedding.scales128 or another group; so head
    layers.0.q.packed        U8   in the layout of `ternops.encodings`, its SLACK included; so k, v,
                             o, gate, up, down; of a delta net qkv, z and out
    layers.0.q.scale         F32  one number for the matrix, or layers.0.q.scales: one a row; or
    layers.0.q.scales128     F16 or F32, one for each 128 inputs of a row, row by row; also 32, 64
                             and 256. The packed bytes are then panels
    layers.0.input.norm      F32  and so the other norms of the architecture
    layers.0.q.bias          F32  where the architecture has them
    layers.0.taps.vector     F32  of a delta net, row by row, and so its other vectors
    norm                     F32  the norm before the head

Each tensor but embedding and head has one dimension and is filled up, with zeros, to a multiple of
64 bytes; the header is filled up as safetensors does, with spaces. So each starts at a cache line.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.packed_header import (
    FORMAT,
    VERSION,
    header_checksum,
    parse_config,
    parse_encodings,
    scale_name,
    whole_lines,
)
from ternops.decoder.formats.pooling import Pooling
from ternops.decoder.formats.safetensors_file import Mapped, map_file
from ternops.decoder.text import parse_tokenizer
from ternops.decoder.weights import HalfMatrix
from ternops.encodings import PANELS, TERNARY, layout_of
from ternops.encodings.common import SLACK
from ternops.encodings.panels import GROUPS
from ternops.encodings.two_bit import TWO_BIT
from ternops.isa import TIER
from ternops.kernels.tuning import best_encoding, is_slow
from ternops.matrix import TernaryMatrix
from ternops.memory import CACHE_LINE
from ternops.packed import Packed
from ternops.packing import turn_scales

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: The encoding of tables that are ternary.
_TABLES = TWO_BIT.name
_DTYPES = {"U8": np.uint8, "F32": np.float32, "F16": np.uint16, "BF16": np.uint16}


class PackedFile(Checkpoint):
    """A file that ``python -m ternops quantize`` wrote, mapped into memory.

    The arrays are views of the mapping: opening reads the header and nothing else, and a model
    needs its own size in memory, shared by all processes that use the file. The header and every
    tensor's dtype, shape and place are checked; the weights are not, since that would read them
    all: a damaged code is another weight and nothing worse. `verify` checks them. A file that is
    to be changed must be replaced, as the writer does: one that is cut off while it is mapped ends
    the process.
    """

    #: Formats and versions that are read.
    _versions: ClassVar[tuple[tuple[str, str], ...]] = ((FORMAT, VERSION), (FORMAT, "1"))

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encodings: dict[str, str] = {}
        try:
            header, self._tensors = map_file(path)
            self._metadata: dict[str, str] = header["__metadata__"]
            self._check_format(header)
            self.config = parse_config(self._text("config"), self._metadata["version"])
            self._check_encoding()
            self._check_tensors()
        except ValueError as error:
            raise ValueError(f"model: {str(path)!r}: {error}") from None

    def matrix(self, layer: int, name: str, encoding: str) -> TernaryMatrix:
        found = self._linear(layer, name)
        own = self.encoding_of(layer, name)
        return self._checked(found, f"{name} in layer {layer}", own).to(encoding)

    def encoding_of(self, layer: int, name: str) -> str:
        """What packs a matrix: the file's encoding, or its own."""
        return self._encodings.get(f"layers.{layer}.{name}", self.encoding)

    @staticmethod
    def _checked(
        found: tuple[npt.NDArray[np.uint8], int, int, npt.NDArray[Any]], name: str, encoding: str
    ) -> TernaryMatrix:
        """The matrix of `_linear`, whose scale is read."""
        packed, rows, columns, scale = found
        if scale.ndim == 2:
            factors, flaws = turn_scales(scale)
            if not flaws & 2:
                return TernaryMatrix(Packed(packed, rows, columns, factors, encoding))
        if not np.isfinite(scale).all():
            raise ValueError(f"checkpoint: the scale of {name} is not finite")
        return TernaryMatrix(Packed(packed, rows, columns, scale, encoding))

    def trits(self, layer: int, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        matrix = self.matrix(layer, name, self.encoding)
        return matrix.to_trits(), np.asarray(matrix.scale, np.float32)

    def norm(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        size = self.config.norm_sizes(layer)[name]
        return self._vector(f"layers.{layer}.{name}.norm", size)

    def bias(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        size = self.config.bias_sizes(layer)[name]
        return self._vector(f"layers.{layer}.{name}.bias", size)

    def vector(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        rows, columns = self.config.vector_shapes(layer)[name]
        return self._vector(f"layers.{layer}.{name}.vector", rows * columns).reshape(rows, columns)

    def final_norm(self) -> npt.NDArray[np.float32]:
        return self._vector("norm", self.config.hidden)

    def embedding(self) -> HalfMatrix | TernaryMatrix:
        return self._table("embedding")

    def head(self) -> HalfMatrix | TernaryMatrix:
        return self._table("head")

    def tokenizer(self) -> Tokenizer:
        if "tokenizer" not in self._tensors:
            raise FileNotFoundError(f"model: {str(self._path)!r} holds no tokenizer")
        data = self._tensors["tokenizer"].bytes.tobytes()
        return parse_tokenizer(data, f"model: the tokenizer of {str(self._path)!r}")

    def chat_template(self) -> str | None:
        return self._metadata.get("chat_template")

    def pooling(self) -> Pooling:
        if "pooling" not in self._metadata:
            return Pooling()
        try:
            return Pooling.from_json(self._metadata["pooling"])
        except ValueError as error:
            raise ValueError(f"model: {str(self._path)!r}: {error}") from None

    def special_tokens(self) -> dict[str, str]:
        try:
            tokens = json.loads(self._text("special_tokens"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"model: {str(self._path)!r}: special_tokens: {error}") from None
        if not isinstance(tokens, dict) or not all(type(each) is str for each in tokens.values()):
            raise ValueError(f"model: {str(self._path)!r}: special_tokens is {tokens!r}")
        return tokens

    def preferred_encoding(self) -> str:
        """The file's, unless the tier is slow with it, with a warning."""
        if not is_slow(self.encoding):
            return self.encoding
        better = best_encoding(self.config.linear_weights)
        warnings.warn(
            f"{self._path.name} holds {self.encoding}, which is slow on {TIER.name}: converting it "
            f"to {better} (quantize --encoding {better} saves the time and the memory)",
            stacklevel=2,
        )
        return better

    def verify(self) -> Iterator[str]:
        """Compare all checksums; yields each tensor's name before it is read.

        Raises ValueError, naming the tensor, for the first that was damaged.
        """
        try:
            expected = [int(each, 16) for each in self._text("crc32").split()]
        except ValueError as error:
            raise ValueError(f"{str(self._path)!r}: crc32: {error}") from None
        names = sorted(self._tensors, key=lambda name: self._tensors[name].start)
        if len(expected) != len(names):
            raise ValueError(
                f"{str(self._path)!r}: {len(expected)} checksums, expected {len(names)}"
            )
        for name, checksum in zip(names, expected, strict=True):
            yield name
            if zlib.crc32(self._tensors[name].bytes.data) != checksum:
                raise ValueError(f"{str(self._path)!r}: tensor {name} was damaged")

    def _check_encoding(self) -> None:
        self.encoding = self._text("encoding")
        if self.encoding not in TERNARY:
            expected = ", ".join(TERNARY)
            raise ValueError(f"encoding {self.encoding!r}, expected one of {expected}")
        if "encodings" in self._metadata:
            self._encodings = parse_encodings(self._metadata["encodings"], self.encoding)

    def _check_format(self, header: dict[str, Any]) -> None:
        found = self._metadata.get("format"), self._metadata.get("version")
        if found not in self._versions:
            raise ValueError(
                f"format {found[0]!r} version {found[1]!r}, expected {FORMAT!r} version "
                f"{VERSION!r}, as python -m ternops quantize writes it (of a Hugging Face model "
                "the folder is opened)"
            )
        if self._text("header_crc32") != header_checksum(header):
            raise ValueError("its header was damaged after it was written")

    def _check_tensors(self) -> None:
        for layer in range(self.config.layers):
            for name in self.config.linear_shapes(layer):
                self._check_linear(layer, name)
            for name, size in self.config.norm_sizes(layer).items():
                self._line(f"layers.{layer}.{name}.norm", size)
            for name, size in self.config.bias_sizes(layer).items():
                self._line(f"layers.{layer}.{name}.bias", size)
            for name, (rows, columns) in self.config.vector_shapes(layer).items():
                self._line(f"layers.{layer}.{name}.vector", rows * columns)
        self._line("norm", self.config.hidden)
        for name in ("embedding",) if self.config.tied else ("embedding", "head"):
            if f"{name}.packed" in self._tensors:
                self._packed(name, *self._table_shape, _TABLES)
            else:
                self._half(name)

    def _check_linear(self, layer: int, name: str) -> None:
        self._linear(layer, name)

    def _text(self, key: str) -> str:
        if key not in self._metadata:
            raise ValueError(f"{key} is missing from the metadata")
        return self._metadata[key]

    def _linear(
        self, layer: int, name: str
    ) -> tuple[npt.NDArray[np.uint8], int, int, npt.NDArray[Any]]:
        """Packed bytes, rows, columns and scale, (), (rows,) or (rows, groups)."""
        return self._packed(
            f"layers.{layer}.{name}", *self.config.linear_shapes(layer)[name],
            self.encoding_of(layer, name),
        )  # fmt: skip

    @property
    def _table_shape(self) -> tuple[int, int]:
        return self.config.vocabulary, self.config.hidden

    def _packed(
        self, prefix: str, rows: int, columns: int, encoding: str
    ) -> tuple[npt.NDArray[np.uint8], int, int, npt.NDArray[Any]]:
        """The same of the tensors whose names begin so."""
        names = {group: f"{prefix}.{scale_name(2, group)}" for group in GROUPS}
        group = next((each for each in GROUPS if names[each] in self._tensors), 0)
        if group and (encoding not in PANELS or columns % group):
            raise ValueError(f"{names[group]}: no such groups of {columns} {encoding} inputs")
        size = layout_of(encoding, group).nbytes(rows, columns) + SLACK
        packed = self._array(f"{prefix}.packed", "U8", (whole_lines(size),))[:size]
        if group:
            return packed, rows, columns, self._groups(names[group], rows, columns // group)
        if f"{prefix}.scales" in self._tensors:
            return packed, rows, columns, self._line(f"{prefix}.scales", rows)
        return packed, rows, columns, self._line(f"{prefix}.scale", 1).reshape(())

    def _groups(self, name: str, rows: int, groups: int) -> npt.NDArray[Any]:
        """A scale a group, (rows, groups), in float16 or float32."""
        dtype = "F16" if self._tensors[name].dtype == "F16" else "F32"
        kind = np.dtype(np.float16 if dtype == "F16" else np.float32)
        size = rows * groups
        line = self._array(name, dtype, (whole_lines(kind.itemsize * size) // kind.itemsize,))
        return line[:size].view(kind).reshape(rows, groups)

    def _line(self, name: str, size: int) -> npt.NDArray[np.float32]:
        """The first `size` float32 of a tensor that was filled up."""
        return self._array(name, "F32", (whole_lines(4 * size) // 4,))[:size]

    def _vector(self, name: str, size: int) -> npt.NDArray[np.float32]:
        values = self._line(name, size)
        if not np.isfinite(values).all():
            raise ValueError(f"checkpoint: {name} holds NaN or infinity, expected finite numbers")
        return values

    def _table(self, name: str) -> HalfMatrix | TernaryMatrix:
        if f"{name}.packed" in self._tensors:
            return self._checked(self._packed(name, *self._table_shape, _TABLES), name, _TABLES)
        return self._half(name)

    def _half(self, name: str) -> HalfMatrix:
        config = self.config
        dtype = "BF16" if self._tensors.get(name, _MISSING).dtype == "BF16" else "F16"
        shape = (config.vocabulary, whole_lines(2 * config.hidden) // 2)
        return HalfMatrix(self._array(name, dtype, shape), config.hidden, dtype == "BF16")

    def _array(self, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        tensor = self._tensors.get(name, _MISSING)
        if tensor is _MISSING:
            raise ValueError(f"tensor {name} is missing")
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, expected {dtype} {shape}")
        if tensor.start % CACHE_LINE:
            raise ValueError(f"{name} starts at byte {tensor.start}, expected a multiple of 64")
        return tensor.bytes.view(_DTYPES[dtype]).reshape(shape)


_MISSING = Mapped("", (), 0, np.empty(0, np.uint8))
