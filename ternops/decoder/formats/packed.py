"""The packed model file: all that a decoder needs in one safetensors file, used where it lies.

The metadata are "format", "version", "encoding", "config" (the fields of Config as JSON; those that
a file lacks have their defaults; in version 1 with "sub_norms", true for a BitNet, in place of
"architecture"), "special_tokens" (JSON), "chat_template" where there is one, "pooling"
(the fields of Pooling as JSON) where a file told of it, "sampling" (those of Sampling that a file
recommended otherwise than they are), "crc32", hexadecimal checksums of the
tensors in their order, and "header_crc32", that of the rest of the header. The tensors are

    tokenizer                U8   a tokenizer.json, if there is one, filled up with spaces
    embedding, head          F16 or BF16 (vocabulary, columns padded to whole cache lines); head
                             only where it is not the embedding; or, where they are ternary,
    embedding.packed         U8   as two_bit, and embedding.scales128 or another group; so head
    layers.0.q.packed        U8   in the layout of `ternops.encodings`, its SLACK included; so k, v,
                             o, gate, up, down; of a delta net qkv, z and out; in another encoding
                             than that of the metadata, by its name, such as
    layers.0.q.nibble        U8   or, as embeddings are,
    layers.0.q               F16 or BF16
    layers.0.q.levels        I8   what its codes stand for, filled up with the last of them, if they
                             are not the encoding's values
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
)
from ternops.decoder.formats.packed_tensors import PackedTensors, Stored
from ternops.decoder.formats.pooling import Pooling
from ternops.decoder.formats.safetensors_file import map_file
from ternops.decoder.formats.sampling import from_json
from ternops.decoder.formats.tried_tokenizer import tried
from ternops.decoder.sampling import Sampling
from ternops.decoder.text import parse_tokenizer
from ternops.decoder.weights import HalfMatrix
from ternops.encodings import ENCODINGS, TERNARY
from ternops.encodings.two_bit import TWO_BIT
from ternops.isa import TIER
from ternops.kernels.tuning import best_encoding, is_slow
from ternops.matrix import TernaryMatrix
from ternops.shown import shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: The encoding of tables that are ternary.
TABLES = TWO_BIT.name


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
        try:
            header, tensors = map_file(path)
            self._tensors = PackedTensors(tensors)
            self._metadata: dict[str, str] = header["__metadata__"]
            self._check_format(header)
            self.config = parse_config(self._text("config"), self._metadata["version"])
            self._check_encoding()
            self._check_tensors()
        except ValueError as error:
            raise ValueError(f"model: {str(path)!r}: {error}") from None

    def matrix(self, layer: int, name: str, encoding: str) -> TernaryMatrix | HalfMatrix:
        """As the checkpoint's; asked for in the file's encoding, in the one that it has here."""
        found = self._linear(layer, name)
        if isinstance(found, HalfMatrix):
            return found
        matrix = found.matrix(f"{name} in layer {layer}")
        if encoding == self.encoding or not set(matrix.levels) <= set(ENCODINGS[encoding].values):
            return matrix
        return matrix.to(encoding)

    def trits(self, layer: int, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        matrix = self.matrix(layer, name, self.encoding)
        if isinstance(matrix, HalfMatrix):
            raise ValueError(f"checkpoint: {name} in layer {layer} holds floats, expected trits")
        return matrix.to_trits(), np.asarray(matrix.scale, np.float32)

    def floats(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        return self.matrix(layer, name, self.encoding).to_dense()

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
        if "tokenizer" not in self._tensors.of:
            raise FileNotFoundError(f"model: {str(self._path)!r} holds no tokenizer")
        data = self._tensors.of["tokenizer"].bytes.tobytes()
        source = f"model: the tokenizer of {str(self._path)!r}"
        return tried(lambda: parse_tokenizer(data, source), source)

    def chat_template(self) -> str | None:
        return self._metadata.get("chat_template")

    def pooling(self) -> Pooling:
        if "pooling" not in self._metadata:
            return Pooling()
        try:
            return Pooling.from_json(self._metadata["pooling"])
        except ValueError as error:
            raise ValueError(f"model: {str(self._path)!r}: {error}") from None

    def sampling(self) -> Sampling:
        try:
            return from_json(self._metadata.get("sampling", "{}"))
        except ValueError as error:
            raise ValueError(f"model: {str(self._path)!r}: {error}") from None

    def special_tokens(self) -> dict[str, str]:
        try:
            tokens = json.loads(self._text("special_tokens"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"model: {str(self._path)!r}: special_tokens: {error}") from None
        if not isinstance(tokens, dict) or not all(type(each) is str for each in tokens.values()):
            raise ValueError(f"model: {str(self._path)!r}: special_tokens is {shown(tokens)}")
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
        tensors = self._tensors.of
        # As written: what is empty, in a part, begins where the next one does.
        names = sorted(tensors, key=lambda name: (tensors[name].start, tensors[name].bytes.nbytes))
        if len(expected) != len(names):
            raise ValueError(
                f"{str(self._path)!r}: {len(expected)} checksums, expected {len(names)}"
            )
        for name, checksum in zip(names, expected, strict=True):
            yield name
            if zlib.crc32(tensors[name].bytes.data) != checksum:
                raise ValueError(f"{str(self._path)!r}: tensor {name} was damaged")

    def _check_encoding(self) -> None:
        self.encoding = self._text("encoding")
        if self.encoding not in TERNARY:
            expected = ", ".join(TERNARY)
            raise ValueError(f"encoding {self.encoding!r}, expected one of {expected}")

    def _check_format(self, header: dict[str, Any]) -> None:
        found = self._metadata.get("format"), self._metadata.get("version")
        if found not in self._versions:
            raise ValueError(
                f"format {shown(found[0])} version {shown(found[1])}, expected {FORMAT!r} version "
                f"{VERSION!r}, as python -m ternops quantize writes it (of a Hugging Face model "
                "the folder is opened)"
            )
        if self._text("header_crc32") != header_checksum(header):
            raise ValueError("its header was damaged after it was written")

    def _check_tensors(self) -> None:
        for layer in self._layers:
            for name in self.config.linear_shapes(layer):
                self._check_linear(layer, name)
            for name, size in self.config.norm_sizes(layer).items():
                self._tensors.line(f"layers.{layer}.{name}.norm", size)
            for name, size in self.config.bias_sizes(layer).items():
                self._tensors.line(f"layers.{layer}.{name}.bias", size)
            for name, (rows, columns) in self.config.vector_shapes(layer).items():
                self._tensors.line(f"layers.{layer}.{name}.vector", rows * columns)
        self._tensors.line("norm", self.config.hidden)
        for name in ("embedding",) if self.config.tied else ("embedding", "head"):
            if f"{name}.packed" in self._tensors.of:
                self._tensors.stored(name, *self._table_shape(name), TABLES)
            else:
                self._tensors.half(name, *self._table_shape(name))

    def _check_linear(self, layer: int, name: str) -> None:
        self._linear(layer, name)

    def _text(self, key: str) -> str:
        if key not in self._metadata:
            raise ValueError(f"{key} is missing from the metadata")
        return self._metadata[key]

    def _linear(self, layer: int, name: str) -> Stored | HalfMatrix:
        prefix, shape = f"layers.{layer}.{name}", self._linear_shape(layer, name)
        if prefix in self._tensors.of:
            return self._tensors.half(prefix, *shape)
        return self._tensors.stored(prefix, *shape, self.encoding)

    @property
    def _layers(self) -> range:
        """Those whose tensors it has."""
        return range(self.config.layers)

    def _linear_shape(self, layer: int, name: str) -> tuple[int, int]:
        return self.config.linear_shapes(layer)[name]

    def _table_shape(self, name: str) -> tuple[int, int]:
        return self.config.vocabulary, self.config.hidden

    def _vector(self, name: str, size: int) -> npt.NDArray[np.float32]:
        values = self._tensors.line(name, size)
        if not np.isfinite(values).all():
            raise ValueError(f"checkpoint: {name} holds NaN or infinity, expected finite numbers")
        return values

    def _table(self, name: str) -> HalfMatrix | TernaryMatrix:
        if f"{name}.packed" in self._tensors.of:
            return self._tensors.stored(name, *self._table_shape(name), TABLES).matrix(name)
        return self._tensors.half(name, *self._table_shape(name))
