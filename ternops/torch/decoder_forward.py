"""The forward of a decoder of transformers as one compiled pass over all of its layers.

transformers runs a token's layers as some forty operators each, whose calls take longer than the
products. Where a call is what `ternops.decoder` computes, one sequence for inference, its pass runs
instead, over the same packed weights; embedding, head and `generate()` stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from ternops.decoder.loaded import LoadedModel
from ternops.decoder.session import WorkspacePool
from ternops.decoder.workspace import MAX_TOKENS
from ternops.memory import HoldsAddresses
from ternops.threads import default_threads
from ternops.torch.decoder_cache import Pages, adopt
from ternops.torch.decoder_weights import DecoderWeights
from ternops.torch.module_tree import ModuleTree
from ternops.torch.operator import DTYPES
from ternops.torch.same_name import same_name

# What later versions of transformers call a cache, and earlier ones.
_CACHE_NAMES = ("cache", "past_key_values")
#: What the one that is installed calls it.
CACHE = next(each for each in _CACHE_NAMES if each in BaseModelOutputWithPast.__annotations__)
_ATTENTION = ("sdpa", "eager")


class Decoder(HoldsAddresses):
    """Passes over the weights of a model, on so many threads, with a kind of cache."""

    def __init__(self, weights: DecoderWeights, threads: int, kind: str) -> None:
        self.threads, self.kind = threads, kind
        model = LoadedModel(weights.packed, threads, cache=kind, sparse="never")
        model.adapts = True  # as products of single layers
        self._pool = WorkspacePool(model)

    def run(self, x: Tensor, pages: Pages) -> Tensor:
        """The normed hidden states, float32 (tokens, hidden), of the next tokens of a sequence.

        x: (tokens, hidden), of DTYPES, their embeddings.
        """
        states = torch.empty(x.shape, dtype=torch.float32, device="cpu")
        for start in range(0, len(x), MAX_TOKENS):
            part = x[start : start + MAX_TOKENS]
            count, cache = len(part), pages.cache
            workspace = self._pool(count)
            torch.from_numpy(workspace.inputs)[:count].copy_(part)
            cache.reserve(pages.positions + count)
            workspace.place(0, np.zeros(count, np.int64), pages.positions, cache)
            found = workspace.run_to_states(count, range(count), cache.layer_step)
            states[start : start + count] = torch.from_numpy(found)
            pages.positions += count
        return states


class Decoding:
    """What a model needs to run so, made when it is first used, and again after a change.

    A copy of the model makes its own, and so does another process: a fork may come in the middle of
    another thread's pass. lock: held for a pass. is_busy: whether one is under way, which the
    thread that holds the lock sees in a signal handler.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock, self.is_busy = threading.RLock(), False
        self._tree: ModuleTree | None = None
        self._weights: DecoderWeights | None = None
        self._decoder: Decoder | None = None

    def __deepcopy__(self, memo: Any) -> Decoding:
        return Decoding()

    def __reduce__(self) -> Any:
        return Decoding, ()

    def weights(self, model: Any) -> DecoderWeights | None:
        """Of a model as it is now; None for one that ternops.decoder does not compute."""
        tree, known = self._tree, self._weights
        if tree is None or not tree.is_same() or not (known is None or known.is_same()):
            self._tree = self._weights = self._decoder = None
            tree = ModuleTree(model)
            with contextlib.suppress(ValueError, AttributeError):
                self._weights = DecoderWeights(model)
            self._tree = tree
        return self._weights

    def is_plain(self) -> bool:
        """Whether the modules that `weights` saw do what their classes say."""
        return self._tree is not None and self._tree.is_plain()

    def decoder(self, weights: DecoderWeights, kind: str) -> Decoder:
        """For as many threads as PyTorch has now."""
        threads = min(default_threads(), torch.get_num_threads())
        found = self._decoder
        if found is None or (found.threads, found.kind) != (threads, kind):
            found = self._decoder = Decoder(weights, threads, kind)
        return found


class _Call:
    """The arguments of a forward: `is_known` says whether there are no others."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Twice is an error of the model's own.
        is_twice = bool(args) and "input_ids" in kwargs
        rest = {"input_ids": args[0], **kwargs} if args else dict(kwargs)
        self.ids, self.embeddings = rest.pop("input_ids", None), rest.pop("inputs_embeds", None)
        self.mask = rest.pop("attention_mask", None)
        self.positions = [rest.pop(name, None) for name in ("position_ids", "cache_position")]
        self.use_cache = rest.pop("use_cache", None)
        caches = [each for name in _CACHE_NAMES if (each := rest.pop(name, None)) is not None]
        self.cache = caches[0] if caches else None
        wants = any(rest.pop(name, None) for name in ("output_attentions", "output_hidden_states"))
        returns = rest.pop("return_dict", None)
        self.is_known = (
            len(args) < 2
            and not is_twice
            and len(caches) < 2
            and not wants
            and returns is not False
            and (self.ids is None) != (self.embeddings is None)
            and all(each is None for each in rest.values())
        )

    @property
    def is_one_sequence(self) -> bool:
        """Whether the input is (1, tokens), or (1, tokens, hidden), on the CPU."""
        x, dimensions = (self.ids, 2) if self.embeddings is None else (self.embeddings, 3)
        return (
            type(x) is Tensor
            and x.is_cpu
            and x.ndim == dimensions
            and x.shape[0] == 1
            and x.shape[1] > 0
        )

    @property
    def tokens(self) -> int:
        """How many there are."""
        given: Tensor = self.embeddings if self.ids is None else self.ids
        return given.shape[1]

    def follows(self, past: int) -> bool:
        """Whether the tokens come right behind so many others and attend to all of them."""
        end = past + self.tokens
        mask = self.mask
        if mask is not None and (
            type(mask) is not Tensor
            or not mask.is_cpu
            or tuple(mask.shape) != (1, end)
            or not bool(mask.all())
        ):
            return False
        for positions in self.positions:
            if positions is None:
                continue
            if type(positions) is not Tensor or not positions.is_cpu:
                return False
            if not torch.equal(positions.reshape(-1), torch.arange(past, end, device="cpu")):
                return False
        return True


def _forward(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the model's own forward returns; None where the call is another one than a decoder's, or
    the model is."""
    call = _Call(args, kwargs)
    if not call.is_known or not call.is_one_sequence or not _is_plain(model):
        return None
    if call.cache is not None and not isinstance(call.cache, DynamicCache):
        return None
    decoding = model._decoding
    if decoding.process != os.getpid():
        decoding = model._decoding = Decoding()
    with decoding.lock:
        if decoding.is_busy:
            return None
        try:
            decoding.is_busy = True
            return _pass(model, decoding, call)
        finally:
            decoding.is_busy = False


def _pass(model: Any, decoding: Decoding, call: _Call) -> Any:
    """What `_forward` returns, of a call that a decoder may compute."""
    cache = call.cache
    weights = decoding.weights(model)
    if weights is None or not decoding.is_plain():
        return None
    if torch.is_grad_enabled() and _has_gradients(model, call.embeddings):
        return None
    config, table = weights.config, model.embed_tokens.weight
    past = 0 if cache is None else cache.get_seq_length()
    if past + call.tokens > config.context or not call.follows(past):
        return None
    x = call.embeddings
    dtype = table.dtype if x is None else x.dtype
    if dtype not in DTYPES or weights.floats[-1].dtype is not dtype or not table.is_cpu:
        return None
    if x is not None and x.shape[2] != config.hidden:
        return None
    kind = "fp32" if dtype is torch.float32 else "fp16"
    use_cache = (
        getattr(model.config, "use_cache", True) if call.use_cache is None else call.use_cache
    )
    if cache is None and use_cache:
        cache = DynamicCache()
    pages = Pages(config, kind) if cache is None else adopt(cache, config, kind, dtype)
    if pages is None:
        return None
    if x is None:
        x = model.embed_tokens(call.ids)
    weights.refresh()
    states = decoding.decoder(weights, kind).run(x[0].detach(), pages)
    last = states.to(dtype)[None]
    return BaseModelOutputWithPast(last_hidden_state=last, **{CACHE: cache})


def _is_plain(model: Any) -> bool:
    """Whether PyTorch would do nothing but compute, and the model all of its layers."""
    config = model.config
    return (
        not model.training
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and config._attn_implementation in _ATTENTION
        and config.num_hidden_layers == len(model.layers)
        and not getattr(config, "output_attentions", False)
        and not getattr(config, "output_hidden_states", False)
        and getattr(config, "return_dict", True) is not False
        and getattr(config, "is_causal", None) in (None, True)
    )


def _has_gradients(model: Any, x: Tensor | None) -> bool:
    """Whether anything that a pass reads has one."""
    return any(each.requires_grad for each in (*model.parameters(), x) if each is not None)


def run_on_decoder(model: Any) -> None:
    """Let a model of transformers, as LlamaModel or what has one, run on `ternops.decoder` where
    that computes the same. It stays what it is otherwise."""
    inner = getattr(model, "base_model", model)
    if "_decoding" in inner.__dict__:
        return
    kind: Any = type(inner)
    decoding = Decoding()
    if decoding.weights(inner) is None:
        return
    inner._decoding = decoding
    if "_without_decoder" not in kind.__dict__:
        inner.__class__ = _class_of(kind)


@functools.cache
def _class_of(base: Any) -> Any:
    """The class of a model whose forward is tried here first. A model that is made of it by its
    config is one of PyTorch's layers."""

    @functools.wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "_decoding" in self.__dict__ and not torch.compiler.is_compiling():
            found = _forward(self, args, kwargs)
            if found is not None:
                return found
        return base.forward(self, *args, **kwargs)

    return same_name(base, {"forward": forward, "_without_decoder": base}, _class_of)
