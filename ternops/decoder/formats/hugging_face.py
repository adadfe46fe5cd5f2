"""Reading a Hugging Face folder: config.json, safetensors and the tokenizer's files."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import find_hugging_face
from ternops.decoder.formats import mlx, tokenizer_config
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.hugging_face_config import object_of, read_config, read_raw
from ternops.decoder.formats.hugging_face_quantization import (
    BITNET,
    OFFLINE,
    ONLINE,
    UNDECLARED,
    read_quantization,
    read_scale,
    read_trits,
)
from ternops.decoder.formats.placeholders import check_fetched
from ternops.decoder.formats.pooling import Pooling, read_pooling
from ternops.decoder.formats.sampling import read_sampling
from ternops.decoder.formats.straight import pack_parts
from ternops.decoder.formats.tables import packed_table, ternary_table
from ternops.decoder.formats.tensors import Tensors
from ternops.decoder.formats.ternary_floats import exact_product
from ternops.decoder.formats.tried_tokenizer import tried
from ternops.decoder.sampling import Sampling
from ternops.decoder.text import load_tokenizer
from ternops.decoder.weights import HalfMatrix
from ternops.encodings.two_bit import TWO_BIT
from ternops.matrix import TernaryMatrix

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Written by old versions of transformers, computed here.
_ROTATIONS = "rotary_emb.inv_freq"
#: What nobody but these has; BitNet's is a weight_scale.
_QUANTIZED = re.compile(
    r".*\.(qweight|qzeros|scales|biases|g_idx|SCB|absmax|quant_map|weight_packed|weight_shape"
    r"|weight_scale_inv|weight_scale_2|weight_zero_point|input_scale)(\..*)?",
    re.DOTALL,
)
#: Read as text or by others, who would make something of a placeholder.
_TEXTS = ("tokenizer.json", "chat_template.jinja")


class HuggingFace(Checkpoint):
    """A folder with a config.json and safetensors, as `transformers` writes and reads it.

    quantize: see `open_checkpoint`.
    """

    def __init__(self, folder: Path, quantize: str | None = None) -> None:
        self._folder, self._quantize = folder, quantize
        for name in _TEXTS:
            check_fetched(folder / name)
        self.config = read_config(folder)
        raw = read_raw(folder)
        _, self._form = find_hugging_face(raw)
        self._quantization = read_quantization(folder)
        quantization = object_of(raw, "quantization")
        self._group = mlx.group_of(quantization) if quantization else None
        self._tensors = Tensors(folder)
        bare = self._form.without_prefix()
        if self._form.embedding not in self._tensors and bare.embedding in self._tensors:
            self._form = bare
        if "use_rms_norm" not in object_of(raw, "quantization_config"):
            self._find_inner_norms()
        self._check_places()
        tables = self._form.embedding, self._form.head
        both = all(each in self._tensors for each in tables)
        if self.config.tied and both and not self._tensors.are_equal(*tables):
            # As in transformers 5: the weights are right, and the config is not.
            self.config = dataclasses.replace(self.config, tied=False)

    def _find_inner_norms(self) -> None:
        """Nothing but the tensors says that BitNet's embedding models norm the inputs of each
        linear layer; what has that is a BitNet, if nothing else says so."""
        if not any(name in self._tensors for name in self._form.norm(0, "q_input")):
            return
        epsilon = self.config.epsilon
        self.config = dataclasses.replace(self.config, inner_norms=True, inner_epsilon=epsilon)
        if self._quantization == UNDECLARED:
            self._quantization = BITNET

    def _check_places(self) -> None:
        """A tensor that is left out (a bias, a layer) would change the logits without a word."""
        form, layers = self._form, self.config.layers
        kinds = {self.config.is_delta(layer): self._known(layer) for layer in range(layers)}
        every = set.union(*kinds.values())
        whole = {form.embedding, form.head, form.final_norm, f"model.{_ROTATIONS}"}
        if self._group:
            whole |= mlx.parts(form.embedding) | mlx.parts(form.head)
        scales = []
        before, after = form.layer.split("{}")
        layer = re.compile(re.escape(before) + r"(\d{1,9})" + re.escape(after) + "(.*)", re.DOTALL)
        for name in sorted(self._tensors):
            if name.startswith(form.ignored):
                continue
            match = layer.match(name)
            number = int(match[1]) if match else 0
            known = kinds[self.config.is_delta(number)] if number < layers else every
            if match[2] not in known if match else name not in whole:
                raise ValueError(f"checkpoint: tensor {name!r} {self._no_place(name)}")
            if name.endswith("_scale") and self._quantization in (UNDECLARED, BITNET):
                raise ValueError(
                    f"checkpoint: tensor {name!r} is of a quantisation that config.json does not "
                    "tell of, expected a quantization_config there"
                )
            if name.endswith("_scale") and self._quantization == ONLINE:
                scales.append(name)
            if number >= layers:
                raise ValueError(
                    f"checkpoint: tensor {name!r}, expected no layers beyond the {layers} of "
                    "config.json"
                )
        if scales:
            warnings.warn(
                f"checkpoint: {scales[0]} is left out, as in transformers: config.json says that "
                "weights are quantised while they are used (online)",
                stacklevel=2,
            )

    def _known(self, layer: int) -> set[str]:
        """What the tensors of a layer may be called within it."""
        form, config = self._form, self.config
        linear = [form.linear[name] for name in config.linear_shapes(layer)]
        norms = [name for key in config.norm_sizes(layer) for name in form.norm_names(key)]
        known = {f"{name}.weight" for name in [*linear, *norms]}
        known |= {f"{name}.weight_scale" for name in linear}
        known |= {f"{form.linear[name]}.bias" for name in config.bias_sizes(layer)}
        known |= {form.vectors[name] for name in config.vector_shapes(layer)}
        known.add(f"self_attn.{_ROTATIONS}")
        if self._group:
            known |= {each for name in linear for each in mlx.parts(f"{name}.weight")}
        return known

    def trits(self, layer: int, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        shape = self.config.linear_shapes(layer)[name]
        tensor = self._form.matrix(layer, name)
        if parts := self._parts(tensor, shape):
            return parts.trits
        return read_trits(self._tensors, tensor, shape, self._quantization, self._quantize)

    def matrix(self, layer: int, name: str, encoding: str) -> TernaryMatrix | HalfMatrix:
        shape = self.config.linear_shapes(layer)[name]
        parts = self._parts(self._form.matrix(layer, name), shape)
        straight = parts and pack_parts(parts, encoding, self._arena)
        return straight or super().matrix(layer, name, encoding)

    def half(self, layer: int, name: str) -> HalfMatrix:
        if self._quantization != UNDECLARED or self._group:
            return super().half(layer, name)
        shape = self.config.linear_shapes(layer)[name]
        return self._tensors.half(self._form.matrix(layer, name), shape)

    @property
    def is_float(self) -> bool:
        if self._quantization != UNDECLARED or self._group:
            return False
        name, shape = next(iter(self.config.linear_shapes(0).items()))
        weight = self._tensors.floats(self._form.matrix(0, name), shape)
        return exact_product(weight) is None

    def _parts(self, name: str, shape: tuple[int, int]) -> mlx.Parts | None:
        """A matrix of MLX's layout."""
        if not self._group or not mlx.is_packed(self._tensors, name):
            return None
        return mlx.read_mlx(self._tensors, name, shape, self._group)

    def norm(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        names = self._form.norm(layer, name)
        found = next((each for each in names if each in self._tensors), names[0])
        weight = self._tensors.floats(found, (self.config.norm_sizes(layer)[name],))
        return weight if name in self._form.unmoved else self._offset(weight)

    def bias(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        size = self.config.bias_sizes(layer)[name]
        bias = self._tensors.floats(self._form.bias(layer, name), (size,))
        if self._quantization == OFFLINE:
            # transformers' AutoBitLinear adds the bias before it multiplies by the scale.
            shape = self.config.linear_shapes(layer)[name]
            scale = read_scale(self._tensors, self._form.matrix(layer, name), shape)
            bias = bias * scale if scale.ndim < 2 else bias
        return bias

    def vector(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        rows, columns = shape = self.config.vector_shapes(layer)[name]
        tensor = self._form.vector(layer, name)
        if name == "taps":
            return self._tensors.floats(tensor, (columns, 1, rows)).reshape(columns, rows).T.copy()
        if name in ("forget", "write"):
            return self._tensors.floats(tensor, shape)
        values = self._tensors.floats(tensor, (columns,)).reshape(shape)
        if name != "forget_rate":
            return values
        with np.errstate(over="ignore"):
            rates = np.exp(values.astype(np.float64)).astype(np.float32)
        if not (np.isfinite(rates) & (rates > 0)).all():
            raise ValueError(f"checkpoint: {tensor} has an exponent that exceeds float32")
        return rates

    def final_norm(self) -> npt.NDArray[np.float32]:
        weight = self._tensors.floats(self._form.final_norm, (self.config.hidden,))
        return self._offset(weight)

    def _offset(self, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return weight + np.float32(self._form.norm_offset) if self._form.norm_offset else weight

    def embedding(self) -> HalfMatrix | TernaryMatrix:
        embedding, head = self._form.embedding, self._form.head
        only_head = self.config.tied and embedding not in self._tensors and head in self._tensors
        return self._table(head if only_head else embedding)

    def head(self) -> HalfMatrix | TernaryMatrix:
        return self._table(self._form.head)

    def _table(self, name: str) -> HalfMatrix | TernaryMatrix:
        shape = self.config.vocabulary, self.config.hidden
        if parts := self._parts(name, shape):
            straight = pack_parts(parts, TWO_BIT.name, self._arena, is_table=True)
            if packed := straight or packed_table(*parts.trits, self._arena):
                return packed
        table = self._tensors.half(name, shape)
        # BitNet's are floats whatever they hold, and MLX's config says which tensors are packed.
        if self._quantization == UNDECLARED and self._group is None:
            return ternary_table(table, self._arena) or table
        return table

    def tokenizer(self) -> Tokenizer:
        source = f"model: {str(self._folder / 'tokenizer.json')!r}"
        return tried(lambda: load_tokenizer(self._folder), source)

    def chat_template(self) -> str | None:
        return tokenizer_config.chat_template(self._folder)

    def special_tokens(self) -> dict[str, str]:
        return tokenizer_config.special_tokens(self._folder)

    def pooling(self) -> Pooling:
        return read_pooling(self._folder)

    def sampling(self) -> Sampling:
        return read_sampling(self._folder)

    def _no_place(self, name: str) -> str:
        if _QUANTIZED.fullmatch(name):
            return "is of another quantisation than BitNet's, which is not supported"
        biases = ", ".join(self.config.bias_sizes())
        biases = f"biases of {biases} alone" if biases else "no biases"
        return f"has no place in this architecture, expected linear layers, {biases}, and norms"
