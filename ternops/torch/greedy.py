"""Greedy decoding by transformers' `generate()`, which needs of a token's logits the largest alone.

`generate()` prepares everything, and its own loop makes the first token. Where that was one pass of
`ternops.decoder`, the following ones are made here: stopping criteria and streamers are asked as
there, but the head need not be read whole, and nothing is prepared anew for each token.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from transformers import GenerationMixin
from transformers.cache_utils import DynamicCache
from transformers.generation import LogitsProcessorList, StoppingCriteriaList

from ternops.torch.decoder_cache import DecoderCache
from ternops.torch.decoder_forward import CACHE
from ternops.torch.half_linear import HalfLinear
from ternops.torch.same_name import same_name

#: What `generate()` and its loop ask a model, which a subclass or an instance may answer otherwise.
_ASKED = (
    "_sample", "prepare_inputs_for_generation", "_update_model_kwargs_for_generation",
    "_has_unfinished_sequences",
)  # fmt: skip
_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
#: Tokens that repay `prepare_largest`, which takes as long as it saves of two.
_WORTH_PREPARING = 4


def decode_greedily(model: Any) -> None:
    """Let a model of transformers, as LlamaForCausalLM, whose inner one runs on `ternops.decoder`,
    decode greedily here. It stays what it is otherwise."""
    kind: Any = type(model)
    inner = model.base_model
    if inner is model or "_decoding" not in inner.__dict__ or "_without_loop" in kind.__dict__:
        return
    # Another class of theirs, or of anybody, might do more to logits than multiply with the head.
    names = {each: getattr(kind, each, None) for each in _ASKED}
    is_theirs = kind.__module__ == type(inner).__module__ and all(
        found is getattr(GenerationMixin, each) for each, found in names.items()
    )
    if is_theirs and kind.__name__ == f"{type(inner).__name__.removesuffix('Model')}ForCausalLM":
        model.__class__ = _class_of(kind)


@functools.cache
def _class_of(base: Any) -> Any:
    """The class of a model whose greedy decoding is done here where it can be."""

    @functools.wraps(base._sample)
    def sample(
        self: Any, input_ids: Any, logits_processor: Any, stopping_criteria: Any,
        generation_config: Any, synced_gpus: Any = False, streamer: Any = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        def theirs(criteria: Any, config: Any, streamer: Any) -> Any:
            return base._sample(
                self, input_ids, logits_processor=logits_processor, stopping_criteria=criteria,
                generation_config=config, synced_gpus=synced_gpus, streamer=streamer, **kwargs,
            )  # fmt: skip

        is_ours = not synced_gpus and _is_greedy(
            self, input_ids, logits_processor, stopping_criteria, generation_config, kwargs
        )
        if not is_ours:
            return theirs(stopping_criteria, generation_config, streamer)
        # Criteria have it; it would be an argument of each forward, which does nothing with it.
        kwargs.pop("tokenizer", None)
        handover = _Handover(stopping_criteria, streamer, kwargs[CACHE])
        config = copy.copy(generation_config)
        config.return_dict_in_generate = True
        result = theirs(
            StoppingCriteriaList([handover]), config, None if streamer is None else handover
        )
        if handover.is_ours:
            result.sequences = _go_on(self, result.sequences, handover)
        return result if generation_config.return_dict_in_generate else result.sequences

    return same_name(base, {"_sample": sample, "_without_loop": base}, _class_of)


def _is_greedy(
    model: Any, ids: Any, processors: Any, criteria: Any, config: Any, kwargs: dict[str, Any]
) -> bool:
    """Whether each token is the largest of the logits as they are, of one sequence with a cache,
    and nobody asks for more than the tokens."""
    return (
        not torch.compiler.is_compiling()
        and "_decoding" in model.base_model.__dict__
        and _is_plain(model)
        and type(ids) is Tensor
        and ids.is_cpu
        and ids.dtype is torch.int64
        and ids.ndim == 2
        and ids.shape[0] == 1
        and type(processors) is LogitsProcessorList
        and not processors
        and type(criteria) is StoppingCriteriaList
        and not config.do_sample
        and not any(getattr(config, each, None) for each in _OUTPUTS)
        and kwargs.get("use_cache") is True
        and type(kwargs.get(CACHE)) in (DynamicCache, DecoderCache)
    )


def _is_plain(model: Any) -> bool:
    """Whether a call of the model is nothing but the inner one and the head, which do what their
    classes say; `ModuleTree` sees to what is within the inner one."""
    head = model._modules.get("lm_head")
    return (
        type(head) in (HalfLinear, nn.Linear)
        and not any(
            each._forward_hooks or each._forward_pre_hooks or "forward" in each.__dict__
            or each._compiled_call_impl is not None
            for each in (model, model.base_model, head)
        )
        and not any(each in model.__dict__ for each in _ASKED)
        and not torch_module._has_any_global_hook()
    )  # fmt: skip


class _Handover:
    """Stopping criteria and streamer of a call as transformers' own loop sees them, which it stops
    after the first token, unless that was no pass of `ternops.decoder`, or is the last one.

    is_ours: whether so. puts_first: whether a streamer gets a token before criteria are asked, as
    in versions 4, or behind that.
    """

    def __init__(self, criteria: StoppingCriteriaList, streamer: Any, cache: Any) -> None:
        self.criteria, self.streamer, self.cache = criteria, streamer, cache
        self.is_ours = self.puts_first = self._is_begun = False

    def __call__(self, ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        found = self.criteria(ids, scores, **kwargs)
        if not self._is_begun and type(self.cache) is DecoderCache and not found.all():
            self.is_ours, found = True, torch.ones_like(found)
        self._is_begun = True
        return found

    def put(self, tokens: Any) -> None:
        self.puts_first = self.puts_first or not self._is_begun
        self.streamer.put(tokens)

    def end(self) -> None:
        if not self.is_ours:
            self.streamer.end()


def _go_on(model: Any, ids: Tensor, handover: _Handover) -> Tensor:
    """The whole sequence, of one that has its first token."""
    criteria, streamer = handover.criteria, handover.streamer
    most = criteria.max_length
    head = model.lm_head
    if type(head) is HalfLinear and (most is None or most - ids.shape[1] >= _WORTH_PREPARING):
        head.prepare_largest()
    is_over = False
    while not is_over:
        tokens = torch.tensor([next_token(model, ids[:, -1:], handover.cache)], device="cpu")
        ids = torch.cat([ids, tokens[:, None]], dim=-1)
        if streamer is not None and handover.puts_first:
            streamer.put(tokens)
        is_over = bool(criteria(ids, None).all())
        if streamer is not None and not handover.puts_first:
            streamer.put(tokens)
    if streamer is not None:
        streamer.end()
    return ids


def next_token(model: Any, token: Tensor, cache: Any) -> int:
    """The token behind the last one, which the cache does not hold yet."""
    asked = {"input_ids": token, CACHE: cache, "use_cache": True}
    if not _is_plain(model) or type(model.lm_head) is not HalfLinear:
        return int(model(**asked, return_dict=True).logits[0, -1].float().argmax())
    states = model.base_model(**asked).last_hidden_state
    return model.lm_head.largest(states)
