"""A cache of transformers whose keys and values lie in the pages of `ternops.decoder`."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from ternops.decoder.cache import Cache
from ternops.decoder.cache_floats import read_floats, write_floats
from ternops.decoder.config import Config
from ternops.torch.operator import DTYPES

#: Whether `crop` is told how many tokens to remove, as from transformers 5.20 or so on, or how many
#: to keep; negative numbers are the first in all.
_REMOVES = "tokens_to_remove" in inspect.signature(DynamicCache.crop).parameters


class Pages:
    """Keys and values of one sequence: of so many `positions`, in a `cache` of a kind."""

    def __init__(self, config: Config, kind: str) -> None:
        self.config, self.kind, self.positions = config, kind, 0
        self.cache = Cache(config, kind)

    def fit(self, config: Config, kind: str) -> bool:
        """Whether a decoder with this config and kind of cache can go on with them."""
        return (self.config is config or self.config == config) and self.kind == kind

    def tensors(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Copies for each layer, (1, kv_heads, positions, head_dim) each."""
        keys, values = read_floats(self.cache, self.config, self.kind, self.positions)
        return [
            (_tensor(key[None], dtype), _tensor(value[None], dtype))
            for key, value in zip(keys, values, strict=True)
        ]

    def fill(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """Hold what `tensors` gives."""
        sides = [
            np.stack([each[0].detach().float().numpy() for each in side]) for side in (keys, values)
        ]
        write_floats(self.cache, self.config, self.kind, *sides)
        self.positions = sides[0].shape[2]

    def copy(self) -> Pages:
        """Another cache that holds the same."""
        found = Pages(self.config, self.kind)
        if self.positions:
            found.cache.restore(self.positions, self.cache.content(self.positions))
        found.positions = self.positions
        return found


class DecoderCache(DynamicCache):
    """A DynamicCache while a decoder runs all layers at once, and reads and writes its pages.

    It is a DynamicCache again, with tensors, once somebody asks for its layers: a layer of
    PyTorch's that adds to it, beam search that reorders it, `pickle`. `adopt` makes it one of
    these anew.
    """

    _pages: Pages
    _dtype: torch.dtype

    @property
    def layers(self) -> list[Any]:
        """Those of the DynamicCache that this becomes."""
        # It is what it was if there is no memory for them.
        self.layers = found = _layers(self._pages, self._dtype)
        return found

    @layers.setter
    def layers(self, value: list[Any]) -> None:
        del self._pages, self._dtype
        self.__class__ = DynamicCache
        self.layers = value

    @property
    def pages(self) -> Pages:
        """What a decoder goes on with."""
        return self._pages

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many positions it holds."""
        return self._pages.positions

    def crop(self, *count: int, **named: int) -> None:
        """As DynamicCache has it, by whatever name: a negative number removes so many tokens."""
        (number,) = *count, *named.values()
        if number < 0:
            self._pages.positions = max(0, self._pages.positions + number)
        elif number or not _REMOVES:
            super().crop(*count, **named)

    def reset(self) -> None:
        """Hold no positions."""
        self._pages.positions = 0

    def activate_past_recording(self) -> None:
        """Nothing is thrown away."""

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return True

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self)

    @property
    def is_linear(self) -> list[bool]:
        return [False] * len(self)

    def __len__(self) -> int:
        return self._pages.config.layers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} layers, {self._pages.positions} positions)"

    def __deepcopy__(self, memo: Any) -> DecoderCache:
        found = DecoderCache.__new__(DecoderCache)
        for name, value in self.__dict__.items():
            is_pages = name == "_pages"
            found.__dict__[name] = value.copy() if is_pages else copy.deepcopy(value, memo)
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Another process has no addresses of this one.
        found = DynamicCache()
        found.__dict__ |= {k: v for k, v in self.__dict__.items() if k not in ("_pages", "_dtype")}
        found.layers = _layers(self._pages, self._dtype)
        _, _, state, *rest = found.__reduce_ex__(protocol)
        return _new, (), state, *rest


def _tensor(values: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype, device="cpu")


def _new() -> DynamicCache:
    """What `pickle` fills in."""
    return DynamicCache.__new__(DynamicCache)


def _layers(pages: Pages, dtype: torch.dtype) -> list[Any]:
    """DynamicLayers that hold the same."""
    layers = [DynamicLayer() for _ in range(pages.config.layers)]
    if pages.positions:
        for layer, (keys, values) in zip(layers, pages.tensors(dtype), strict=True):
            layer.update(keys, values)
    return layers


def adopt(cache: Any, config: Config, kind: str, dtype: torch.dtype) -> Pages | None:
    """Make a cache a DecoderCache, with what it holds, and return its pages; None for one that
    another program has made, or that holds something else, which stays as it is.

    config, kind: of the decoder. dtype: of the model's own keys and values.
    """
    if type(cache) is DecoderCache:
        if cache._pages.fit(config, kind):
            cache._dtype = dtype
            return cache._pages
        _ = cache.layers
    if type(cache) is not DynamicCache or getattr(cache, "offloading", False):
        return None
    if getattr(cache, "layer_class_to_replicate", None) not in (None, DynamicLayer):
        return None
    layers = cache.layers
    if any(type(each) is not DynamicLayer for each in layers):
        return None
    pages = Pages(config, kind)
    # Versions 4 make the first layer of an empty one at once.
    if any(each.get_seq_length() for each in layers):
        if len(layers) != config.layers:
            return None
        keys, values = [each.keys for each in layers], [each.values for each in layers]
        if not _is_known([*keys, *values], config):
            return None
        pages.fill(keys, values)
    cache._pages, cache._dtype = pages, dtype
    cache.__class__ = DecoderCache
    cache.__dict__["layers"] = []  # tensors that nothing reads any more
    return pages


def _is_known(tensors: list[Any], config: Config) -> bool:
    """Keys and values of one sequence, of all layers, that the context holds."""
    if any(type(each) is not Tensor for each in tensors):
        return False
    positions = tensors[0].shape[2] if tensors[0].ndim == 4 else 0
    shape = 1, config.kv_heads, positions, config.head_dim
    return 0 < positions <= config.context and all(
        each.shape == shape and each.is_cpu and each.dtype in DTYPES and not each.requires_grad
        for each in tensors
    )
