"""How a Hugging Face checkpoint stores ternary weights, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import absmean
from ternops.decoder.architectures import find_hugging_face
from ternops.decoder.formats.hugging_face_config import object_of
from ternops.decoder.formats.json_files import read_object
from ternops.decoder.formats.scales import GROUPS, check_scales
from ternops.decoder.formats.tensors import PACKED, Tensors
from ternops.decoder.formats.ternary_floats import trits_of_floats
from ternops.quarters import packed_rows, unpack_quarters
from ternops.shown import shown

Trits = npt.NDArray[np.int8]
Scale = npt.NDArray[np.float32]

#: No word about it: products of trits and scales, or anything else.
UNDECLARED = "undeclared"
#: Said to be a BitNet and no more: the same products, or masters to be quantised by absmean.
BITNET = "bitnet"
#: Float masters, to be quantised by absmean, whatever their values are.
ONLINE = "online"
#: Trits, packed or as floats; the layer's output is multiplied by weight_scale.
OFFLINE = "offline"
#: Packed trits; the layer's output is DIVIDED by weight_scale (transformers' BitLinear).
BITLINEAR = "bitlinear"

_METHOD = "bitnet"  # quant_method
_OUTSIDE_BLOCKS = ("lm_head", "model.embed_tokens", "embed_tokens", "model.norm")


def read_quantization(folder: Path) -> str:
    """One of the names above, of a folder's config.json; ValueError for anything else.

    The defaults are those of transformers' BitNetQuantConfig.
    """
    raw = read_object(folder / "config.json")
    settings = object_of(raw, "quantization_config")
    if raw.get("quantization"):  # MLX's: it says of each tensor how it is stored
        return UNDECLARED
    for key, expected in (("weight_bits", 1), ("input_bits", 8)):
        if raw.get(key, expected) != expected:
            raise ValueError(f"config: {key} is {shown(raw[key])}, expected {expected}")
    if not settings:
        _, form = find_hugging_face(raw)
        if form.quantises:
            return ONLINE
        return BITNET if raw.get("is_bitnet_config") is True else UNDECLARED
    method = settings.get("quant_method")
    if method != _METHOD:
        raise ValueError(f"config: quant_method is {method!r}, expected {_METHOD!r}")
    kind = _choice(settings, "linear_class", ("bitlinear", "autobitlinear"))
    mode = _choice(settings, "quantization_mode", (OFFLINE, ONLINE))
    if not isinstance(settings.get("use_rms_norm", False), bool | None):
        found = settings["use_rms_norm"]
        raise ValueError(f"config: use_rms_norm is {shown(found)}, expected true or false")
    name = BITLINEAR if kind == "bitlinear" else mode
    _check_converted(settings.get("modules_to_not_convert"), name)
    return name


def _choice(settings: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
    """The setting at a key, the first choice where it is missing."""
    value = settings.get(key, choices[0])
    if value not in choices:
        raise ValueError(
            f"config: {key} is {shown(value)}, expected {' or '.join(map(repr, choices))}"
        )
    return str(value)


def _check_converted(kept: Any, kind: str) -> None:
    """The linear layers of the blocks are ternary and the head is not: nothing else can be read."""
    if kept is None:
        return
    if not isinstance(kept, list) or not all(each in _OUTSIDE_BLOCKS for each in kept):
        raise ValueError(f"config: modules_to_not_convert is {kept!r}, expected ['lm_head']")
    if kind == ONLINE and "lm_head" not in kept:
        raise ValueError(
            f"config: modules_to_not_convert is {kept!r}, expected 'lm_head' in it: a ternary head "
            "is not supported"
        )


def read_trits(
    tensors: Tensors, name: str, shape: tuple[int, int], kind: str, quantize: str | None = None
) -> tuple[Trits, Scale]:
    """int8 trits of a shape and the float32 scale, () or (rows,), that they are multiplied by.

    name: the tensor of the weight; its scale is in the tensor name + "_scale". kind: see
    `read_quantization`. quantize: how to round floats that nothing declares and that need it.
    """
    if kind == ONLINE:
        trits, mean = absmean(tensors.floats(name, shape))
        return trits, np.asarray(mean)
    if kind in (UNDECLARED, BITNET):
        method = "absmean" if kind == BITNET else quantize
        return trits_of_floats(tensors.floats(name, shape), name, method)
    if kind == BITLINEAR or tensors.dtype(name) == PACKED:
        trits = _unpack(tensors, name, shape)
    else:
        trits = _trits_alone(tensors, name, shape)
    if kind == OFFLINE:
        return trits, read_scale(tensors, name, shape)
    scale = tensors.number(f"{name}_scale")
    with np.errstate(over="ignore"):
        inverse = np.float32(1) / scale  # rounded once
    if not np.isfinite(inverse):
        raise ValueError(f"checkpoint: {name}_scale is {scale}, expected a finite inverse")
    return trits, np.asarray(inverse)


def read_scale(tensors: Tensors, name: str, shape: tuple[int, int]) -> Scale:
    """What the trits of a tensor of a shape are multiplied by (`OFFLINE`): () of the one number
    that transformers knows, or (rows,) or (rows, groups of inputs), as `ternops.torch` saves it."""
    rows, columns = shape
    found = tensors.shape(f"{name}_scale")
    several = [(rows,), *((rows, columns // each) for each in GROUPS if columns % each == 0)]
    if found == (1,) or found not in several:
        return np.asarray(tensors.number(f"{name}_scale"))
    scale = tensors.floats(f"{name}_scale", found)
    try:
        check_scales(scale)
    except ValueError as error:
        raise ValueError(f"checkpoint: {name}_scale {error}") from None
    return scale


def _trits_alone(tensors: Tensors, name: str, shape: tuple[int, int]) -> Trits:
    weight = tensors.floats(name, shape)
    trits = weight.astype(np.int8, casting="unsafe") if np.abs(weight).max() <= 1 else None
    if trits is None or not (trits == weight).all():
        raise ValueError(f"checkpoint: {name} holds other numbers, expected -1, 0 and 1 (offline)")
    return trits


def _unpack(tensors: Tensors, name: str, shape: tuple[int, int]) -> Trits:
    rows, columns = shape
    packed = tensors.raw(name, (packed_rows(rows), columns), (PACKED,))
    return unpack_quarters(packed, rows, f"checkpoint: {name}")
