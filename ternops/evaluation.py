"""A model for lm-evaluation-harness (extra `eval`), by the name "ternops" once this is imported."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from ternops.decoder import Batch, Model, Session, open_checkpoint
from ternops.decoder.cache import page_bytes, pages_of
from ternops.decoder.chat import ChatTemplate
from ternops.decoder.perplexity import Likelihood, likelihood
from ternops.decoder.stops import StoppedText
from ternops.decoder.workspace import MAX_TOKENS

#: Tokens of an answer where a task does not say how many.
_MOST = 256
#: Texts that are scored together, if there is room.
_SCORED = 32


@register_model("ternops")
class TernopsLM(TemplateLM):
    """Scores texts and continues them, with the harness's conventions of transformers' models.

    path: as of `Model.from_pretrained`, whose settings these are, or a model of it that is loaded.
    max_length: of a context and its continuation, the model's context by default. batch_size: of
    `Batch`, for answers; texts that are scored are as many as find room in the same memory.
    device and max_batch_size: what the harness hands to all models, of no meaning here.
    Raises ValueError for what `Model.from_pretrained` refuses.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        model: Model | None = None,
        max_length: int | None = None,
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise ValueError(f"device={device!r}: expected 'cpu'")
        checkpoint = open_checkpoint(path, quantize=settings.get("quantize"))
        self.tokenizer = checkpoint.tokenizer()
        self._special = checkpoint.special_tokens()
        self._template = checkpoint.chat_template()
        self._name = str(path or "tiny")
        self._model = model or Model.from_pretrained(path, **settings)
        context = self._model.config.context
        self.max_length = context if max_length is None else operator.index(max_length)
        if not 1 <= self.max_length <= context:
            raise ValueError(f"max_length={max_length}: expected 1 to the context of {context}")
        is_auto = str(batch_size).startswith("auto") or batch_size is None
        self._size = 8 if is_auto else int(batch_size)
        if not 1 <= self._size <= MAX_TOKENS:
            raise ValueError(f"batch_size={batch_size}: expected 1 to {MAX_TOKENS}, or auto")
        self._session = Session(self._model)

    @property
    def eot_token_id(self) -> int:
        """The first of the tokens that end a text."""
        eos = self._model.config.eos
        if not eos:
            raise ValueError("model: no token ends a text, expected one for tasks that need it")
        return eos[0]

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context follows: the token that begins one, or that ends one."""
        begin = self.tokenizer.token_to_id(self._special.get("bos_token", ""))
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        """For the names of caches."""
        return self._name.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Tokens, with those that begin a text unless the string does so itself or without them."""
        if add_special_tokens is None:
            begin = self._special.get("bos_token")
            add_special_tokens = not (begin and string.startswith(begin))
        found: list[int] = self.tokenizer.encode(string, add_special_tokens=add_special_tokens).ids
        return found

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The Jinja source of the model's files."""
        return self._template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages as one text; ValueError where the model has no template."""
        if self._template is None:
            raise ValueError(f"model: {self._name} has no chat template")
        if not add_generation_prompt:
            raise ValueError("add_generation_prompt: False, expected an answer to be begun")
        return ChatTemplate(self._template, self._special).render(chat_history)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """In an order in which those with the same beginning come one after another."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        wanted = {}
        for at in sorted(range(len(requests)), key=lambda at: requests[at][1] + requests[at][2]):
            _, context, continuation = requests[at]
            tokens = (context + continuation)[-(self.max_length + 1) :]
            start = max(1, len(tokens) - len(continuation))
            if start < len(tokens):
                wanted[at] = tokens, start
        for at, (losses, is_greedy) in self._likelihoods(wanted):
            found[at] = -sum(losses), is_greedy
            if requests[at][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[at][0], found[at])
        return found

    def _likelihoods(
        self, wanted: dict[int, tuple[list[int], int]]
    ) -> Iterator[tuple[int, Likelihood]]:
        """Of the tokens of each sequence from a start on, by its number, as they are found."""
        config = self._model.config
        if sum(config.delta_layers):
            # States of delta nets are not shared: a beginning would be computed for each again.
            for number, (tokens, start) in wanted.items():
                yield number, likelihood(self._session, tokens, start)
            return
        room = self._size * pages_of(config.context) * page_bytes(config, self._model.cache)
        batch = Batch(self._model, _SCORED, kv_memory=room)
        numbers = {batch.score(*each): number for number, each in wanted.items()}
        while len(batch):
            for each in batch.step():
                assert each.likelihood is not None
                yield numbers[each.request], each.likelihood

    def loglikelihood_rolling(
        self, requests: Iterable[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Of whole texts, in windows of max_length."""
        texts = [text for (text,) in (request.args for request in requests)]
        parts: list[tuple[Any, list[int], list[int]]] = []
        counts = []
        for text in texts:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length, context_len=1,
            )  # fmt: skip
            before = len(parts)
            parts += [(None, *make_disjoint_window(window)) for window in windows]
            counts.append(len(parts) - before)
        scores = iter(self._loglikelihood_tokens(parts))
        found = []
        for text, count in zip(texts, counts, strict=True):
            found.append(sum(score for score, _ in itertools.islice(scores, count)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, several at a time, each up to the first of its texts to stop at."""
        batch = Batch(self._model, self._size)
        prompts, settings = [], []
        for context, raw in (request.args for request in requests):
            settings.append(normalize_gen_kwargs(raw, _MOST))
            most = settings[-1]["max_gen_toks"] = min(
                settings[-1]["max_gen_toks"], self.max_length - 1
            )
            prompts.append(self.tok_encode(context)[-(self.max_length - most) :])
        texts = [""] * len(requests)
        answers: dict[int, tuple[int, StoppedText]] = {}
        # What begins alike is read once as long as it is kept.
        for at in sorted(range(len(requests)), key=prompts.__getitem__):
            each = settings[at]
            number = batch.add(
                prompts[at], each["max_gen_toks"], each.get("temperature", 0.0),
                each.get("top_p", 1.0), seed=at, top_k=each.get("top_k", 0),
            )  # fmt: skip
            stops = [stop for stop in each["until"] if stop]
            answers[number] = at, StoppedText(self.tokenizer, [], stops)
        while len(batch):
            for number, token, last, *_ in batch.step():
                at, answer = answers[number]
                text, stopped = answer.take(token, last)
                texts[at] += text
                if stopped:
                    batch.cancel(number)
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts
