"""Reading a GGUF file, as llama.cpp and bitnet.cpp write them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import find_gguf
from ternops.decoder.formats import gguf_levels, gguf_tokenizer
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.gguf_blocks import TERNARY, has_no_zeros
from ternops.decoder.formats.gguf_config import read_config
from ternops.decoder.formats.gguf_file import GgufFile, Tensor
from ternops.decoder.formats.gguf_rope import rope_tensors
from ternops.decoder.formats.placeholders import check_fetched
from ternops.decoder.formats.pooling import GGUF_MODES, Pooling
from ternops.decoder.formats.sampling import gguf_sampling
from ternops.decoder.formats.scales import check_scales
from ternops.decoder.formats.straight import pack_blocks, pack_levels
from ternops.decoder.formats.tables import packed_table, ternary_table
from ternops.decoder.formats.ternary_floats import trits_of_floats
from ternops.decoder.formats.tried_tokenizer import tried
from ternops.decoder.sampling import Sampling
from ternops.decoder.weights import HalfMatrix
from ternops.encodings.one_bit import ONE_BIT
from ternops.encodings.two_bit import TWO_BIT
from ternops.matrix import TernaryMatrix, pack
from ternops.packed import Packed, check_columns, halves_of
from ternops.shown import shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FLOATS = ("F32", "F16", "BF16")
#: A few levels times a scale.
_LEVELS = tuple(gguf_levels.LAYOUTS)
#: Blocks of more than levels and a scale, or of levels that are not packed here.
_OTHERS = ("Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
_LINEAR = (*TERNARY, *_FLOATS, *_LEVELS, *_OTHERS)
_EMBEDDING = tuple(kind for kind in _LINEAR if kind != "I2_S")


def gguf_package() -> Any:
    """The package, or a line about installing it."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise ModuleNotFoundError("gguf is not installed: pip install 'ternops[llm]'") from None
    return gguf


class Gguf(Checkpoint):
    """A GGUF file of one of ARCHITECTURES.

    quantize: see `open_checkpoint`.
    """

    def __init__(self, path: Path, quantize: str | None = None) -> None:
        gguf_package()
        if not path.is_file():
            raise FileNotFoundError(f"model: {str(path)!r} is no file")
        check_fetched(path)
        self._path, self._quantize = path, quantize
        self._file = GgufFile(path)
        self._metadata = self._file.metadata
        _, self._form = find_gguf(self._metadata)
        self.config = read_config(self._file)
        self._check_names()

    def trits(self, layer: int, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        shape = self.config.linear_shapes(layer)[name]
        tensor = self._form.matrix(layer, name)
        trits, scale = self._decode(tensor, shape)
        if (factor := self._factor(tensor)) is not None:
            scale = self._rescaled(scale, factor, tensor)
        if (order := self._order(name, shape)) is not None:
            trits, scale = trits[order], scale if scale.ndim == 0 else scale[order]
        return trits, scale

    def matrix(self, layer: int, name: str, encoding: str) -> TernaryMatrix | HalfMatrix:
        tensor, shape = self._form.matrix(layer, name), self.config.linear_shapes(layer)[name]
        found = self._file.tensor(tensor, shape, _LINEAR)
        kind, data = found.kind, found.data
        order, factor = self._order(name, shape), self._factor(tensor)
        if self._is_rounded(kind.name):
            return self._file.half(tensor, order, factor)
        if kind.name in _LEVELS:
            layout = gguf_levels.LAYOUTS[kind.name]
            check_columns(tensor, shape[1], layout.levels)
            matrix = pack_levels(kind, data, shape, self._arena, order)
            encoding, levels = layout.encoding, layout.levels
        else:
            matrix, levels = pack_blocks(kind, data, shape, encoding, self._arena, order), None
        if matrix is None:  # `trits` tells what is wrong with it, if anything is
            return pack(*self.trits(layer, name), encoding, levels).moved(self._arena)
        if factor is None:
            return matrix
        scale = self._rescaled(np.asarray(matrix.scale, np.float32), factor, tensor)
        scale = halves_of(scale) if matrix.group else scale
        return TernaryMatrix(Packed(matrix._packed.bytes, *shape, scale, encoding, matrix.levels))

    def floats(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        tensor, shape = self._form.matrix(layer, name), self.config.linear_shapes(layer)[name]
        if self._is_rounded(self._file.tensor(tensor, shape, _LINEAR).kind.name):
            return self.matrix(layer, name, TWO_BIT.name).to_dense()
        return super().floats(layer, name)

    def _is_rounded(self, kind: str) -> bool:
        """Whether a matrix of a type is held in two bytes a weight; floats are, which nothing says
        to become ternary, beside matrices of levels."""
        if kind in _OTHERS:
            return True
        is_master = self._quantize is not None or self.config.inner_norms
        return kind in _FLOATS and not is_master and self._has_levels

    @functools.cached_property
    def _has_levels(self) -> bool:
        """Whether any linear layer has other levels than trits."""
        return any(tensor.kind.name in (*_LEVELS, *_OTHERS) for tensor in self._linear_tensors)

    @property
    def _linear_tensors(self) -> list[Tensor]:
        """Those of the linear layers that there are."""
        names = [self._form.matrix(layer, name) for layer in range(self.config.layers)
                 for name in self.config.linear_shapes(layer)]  # fmt: skip
        return [self._file.tensors[name] for name in names if name in self._file.tensors]

    def _order(self, name: str, shape: tuple[int, int]) -> npt.NDArray[np.intp] | None:
        """Where the rows of a matrix are, if not in order."""
        if name in ("q", "k") and self._form.interleaved:
            return _halves(shape[0], self.config.head_dim)
        return None

    def preferred_encoding(self) -> str:
        """One bit a weight, where the file has no zeros."""
        found = self._linear_tensors
        kinds = {tensor.kind.name for tensor in found}
        if kinds == {"Q1_0"} and all(has_no_zeros(tensor.kind, tensor.data) for tensor in found):
            return ONE_BIT.name
        return super().preferred_encoding()

    def norm(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        return self._vector(self._form.norm(layer, name), self.config.norm_sizes(layer)[name])

    def bias(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        bias = self._vector(self._form.bias(layer, name), self.config.bias_sizes(layer)[name])
        if name in ("q", "k") and self._form.interleaved:
            return bias[_halves(len(bias), self.config.head_dim)]
        return bias

    def vector(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        rows, columns = shape = self.config.vector_shapes(layer)[name]
        tensor = self._form.vector(layer, name)
        if name in ("forget", "write"):
            self._file.tensor(tensor, shape, _EMBEDDING)
            return self._file.floats(tensor)
        if name == "taps":
            self._file.tensor(tensor, (columns, rows), _FLOATS)
            return self._file.floats(tensor).T.copy()
        values = self._vector(tensor, columns).reshape(shape)
        if name != "forget_rate":
            return values
        if not (values < 0).all():
            raise ValueError(
                f"checkpoint: {tensor} holds {values.max()}, expected negative numbers"
            )
        return -values

    def final_norm(self) -> npt.NDArray[np.float32]:
        return self._vector(self._form.final_norm, self.config.hidden)

    def embedding(self) -> HalfMatrix | TernaryMatrix:
        return self._table(self._form.embedding)

    def head(self) -> HalfMatrix | TernaryMatrix:
        return self._table(self._form.head)

    def tokenizer(self) -> Tokenizer:
        if gguf_tokenizer.TOKENS not in self._metadata:
            raise FileNotFoundError(f"model: {str(self._path)!r} has no tokenizer")
        source = f"model: the tokenizer of {str(self._path)!r}"
        return tried(lambda: gguf_tokenizer.build_tokenizer(self._metadata), source)

    def chat_template(self) -> str | None:
        template = self._metadata.get("tokenizer.chat_template")
        if template is not None and not isinstance(template, str):
            raise ValueError(f"tokenizer.chat_template is {shown(template)}, expected a string")
        return template

    def special_tokens(self) -> dict[str, str]:
        return gguf_tokenizer.special_tokens(self._metadata)

    def pooling(self) -> Pooling:
        kind = self._metadata.get(f"{self._form.name}.pooling_type", 0)
        if not kind:
            return Pooling()
        return Pooling(mode=GGUF_MODES[kind], source=f"{self._form.name}.pooling_type")

    def sampling(self) -> Sampling:
        return gguf_sampling(self._metadata)

    def _check_names(self) -> None:
        """Refuse what would be left out of the computation: biases, experts, scaled rope."""
        form, config = self._form, self.config
        whole = {form.embedding, form.final_norm, form.head} | rope_tensors(form)
        for layer in range(config.layers):
            for name in config.linear_shapes(layer):
                tensor = form.matrix(layer, name)
                whole |= {tensor, self._scale_of(tensor)}
            whole |= {form.norm(layer, name) for name in config.norm_sizes(layer)}
            whole |= {form.bias(layer, name) for name in config.bias_sizes(layer)}
            whole |= {form.vector(layer, name) for name in config.vector_shapes(layer)}
        ahead = self._metadata.get(f"{form.name}.nextn_predict_layers", 0) if form.hybrid else 0
        unread = tuple(form.layer.format(config.layers + at) for at in range(ahead))
        for name in self._file.tensors:
            if name not in whole and not name.startswith(unread):
                raise ValueError(
                    f"model: {str(self._path)!r} holds {name}, which is no part of a "
                    f"{form.name} model of {self.config.layers} layers"
                )

    def _decode(
        self, name: str, shape: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        tensor = self._file.tensor(name, shape, (*TERNARY, *_FLOATS, *_LEVELS))
        if tensor.kind.name in _LEVELS:
            return self._file.levels(name)
        if tensor.kind.name in _FLOATS:
            # What norms the inputs of each linear layer is a BitNet, if nothing else says so.
            method = "absmean" if self.config.inner_norms else self._quantize
            return trits_of_floats(self._file.floats(name), name, method)
        return self._file.trits(name)

    @staticmethod
    def _scale_of(tensor: str) -> str:
        """The tensor of a scale beside that of a weight."""
        return tensor.removesuffix("weight") + "scale"

    def _factor(self, tensor: str) -> np.float32 | None:
        """The number that some writers add for a weight to be multiplied by."""
        name = self._scale_of(tensor)
        if name not in self._file.tensors:
            return None
        self._file.tensor(name, (1,), ("F32",))
        factor: np.float32 = self._file.floats(name)[0, 0]
        try:
            check_scales(factor)
        except ValueError as error:
            raise ValueError(f"checkpoint: {name} {error}") from None
        return factor

    def _vector(self, name: str, size: int) -> npt.NDArray[np.float32]:
        self._file.tensor(name, (size,), _FLOATS)
        return self._file.floats(name)[0].copy()

    def _rescaled(
        self, scale: npt.NDArray[np.float32], factor: np.float32, tensor: str
    ) -> npt.NDArray[np.float32]:
        """The scale of a tensor times its factor: none that is not 0 becomes that."""
        with np.errstate(over="ignore", under="ignore"):
            product = np.asarray(scale * factor)
        try:
            check_scales(np.abs(product[scale != 0]))
        except ValueError as error:
            raise ValueError(f"checkpoint: {self._scale_of(tensor)} {error}") from None
        return product

    def _table(self, name: str) -> HalfMatrix | TernaryMatrix:
        shape = self.config.vocabulary, self.config.hidden
        tensor = self._file.tensor(name, shape, _EMBEDDING)
        if tensor.kind.name not in TERNARY:
            half = self._file.half(name)
            is_float = tensor.kind.name in _FLOATS
            return (ternary_table(half, self._arena) if is_float else None) or half
        packed = pack_blocks(
            tensor.kind, tensor.data, shape, TWO_BIT.name, self._arena, is_table=True
        ) or packed_table(*self._file.trits(name), self._arena)
        return packed or self._file.half(name)


def neighbours(rows: int, head_dim: int) -> npt.NDArray[np.intp]:
    """The opposite: where those of heads that are rotated by neighbours lie."""
    order = np.arange(rows).reshape(-1, 2, head_dim // 2)
    return order.swapaxes(1, 2).reshape(-1)


def _halves(rows: int, head_dim: int) -> npt.NDArray[np.intp]:
    """Where the rows of heads that are rotated by halves lie in heads rotated by neighbours."""
    order = np.arange(rows).reshape(-1, head_dim // 2, 2)
    return order.swapaxes(1, 2).reshape(-1)
