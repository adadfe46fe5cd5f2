"""Model: weights from a checkpoint, and what people do with them."""

from __future__ import annotations

import dataclasses
import functools
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.drafts import draft_of
from ternops.decoder.embed import Embedder, check_dtype, quantize_embeddings, unit_length
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.delta_file import read_delta
from ternops.decoder.formats.loading import HALF, load_weights, open_checkpoint
from ternops.decoder.formats.lora_file import read_lora
from ternops.decoder.formats.pooling import MEAN
from ternops.decoder.formats.stack_file import StackFile, check_stack
from ternops.decoder.generate import generate
from ternops.decoder.loaded import LoadedModel
from ternops.decoder.sampler import Constraint, Sampler
from ternops.decoder.sampling import Sampling
from ternops.decoder.session import Progress, Session
from ternops.decoder.texts import Texts, check_texts
from ternops.encodings import TERNARY
from ternops.sizes import parse_size
from ternops.spelling import expected_one
from ternops.threads import check_threads

if TYPE_CHECKING:
    from ternops.ranks.group import Group

__all__ = ["Model", "Session"]


class Model(LoadedModel):
    """A decoder. `threads`: how many run each token (default: all, fewer while the CPUs are busy).

    head: how the output head is computed: "fp16", "int8", "screened" (an int8 copy rules out
    what cannot be among the likeliest tokens, the rest is computed in fp16: greedy and top-k
    results are those of fp16) or "auto" (screened, where the head exceeds the last-level cache).
    cache: how keys and values are kept: "fp16", "fp32", or "int8" or "int3" (3 bits), with a step
        a head and position.
    sparse: whether single tokens of a model with ReLU^2 leave out the rows of `up` whose gate is 0
    and the columns of `down` whose activation is 0: "auto" (where so many are that it takes less
    time), "always" or "never". The bits are the same; `down` is kept a second time, by columns.
    deltas: fine-tunes of these weights by name, for `generate`, `Session` and `Batch.add`; nothing
    is left out then. adapter: what stands beside the linear layers of all tokens (LoRA), as
    `ternops.decoder.formats.lora_file.read_lora` gives it; not together with deltas. A model can be
    pickled, weights and all; copies are the model itself.
    Raises ValueError for other words.
    """

    #: Opens the files that it was loaded from, of which `embed` needs the tokenizer.
    _open: Callable[[], Checkpoint] | None = None
    _texts: Texts | None = None
    _embedder: Embedder | None = None
    #: Of how many residual blocks there are, and how many count.
    _stack: StackFile | None = None

    def __reduce__(self) -> Any:
        return *super().__reduce__(), {"_open": self._open, "_texts": self._texts}

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        weights: str = "ternary",
        head: str = "auto",
        cache: str = "fp16",
        sparse: str = "auto",
        context: int | None = None,
        threads: int | None = None,
        quantize: str | None = None,
        deltas: Mapping[str, str | os.PathLike[str]] | None = None,
        lora: str | os.PathLike[str] | None = None,
        memory: int | str | None = None,
        progress: Callable[[int, int], None] | None = None,
        group: Group | None = None,
    ) -> Model:
        """Load a checkpoint (default: the tiny one of this package).

        path: a Hugging Face folder, a GGUF file, what `python -m ternops quantize` wrote, or the
        name of a model of the hub, which is downloaded ("owner/name", see `open_checkpoint`).
        weights: "ternary" for the best encoding here, the name of an encoding, or "fp16" for the
        baseline: the float16 of the quantised values and activations that are not quantised; or
        "half" for a model that is not ternary, float16 or bfloat16 as it is. What a GGUF file has
        in more levels (Q4_0, Q8_0, IQ4_NL, MXFP4, NVFP4) keeps these and their scales with any
        encoding; its other matrices that are not ternary (Q4_1, Q6_K, F16, ...) are then rounded to
        float16, two bytes a weight.
        head, cache, sparse: as for Model. context: use at most this many positions of the model's.
        quantize: "absmean" rounds float weights that are not ternary and that no config declares
        to be masters of ternary ones to one scale a matrix, "absmean-128" (256, 64, 32) to one for
        so many inputs; without, they are a ValueError.
        deltas: fine-tunes of it by the names that `generate`, `Session` and `Batch.add` know them
        by, files that ``python -m ternops delta`` wrote, one bit a weight each.
        lora: an adapter of peft's for it, adapter_model.safetensors or its folder, which stands
        beside the linear layers of all tokens, in float32 of their inputs before these are rounded.
        memory: of what `python -m ternops stack` wrote, use as much as takes so many bytes, or
        "1.2GB" of them; see `limit`.
        progress: called with layers done and in all. group: the processes that share it out, see
        `ternops.ranks`.
        Raises FileNotFoundError and ValueError, naming the file, the tensor or the setting.
        """
        kinds = {"ternary": "auto", **{name: name for name in ("fp16", HALF, *TERNARY)}}
        if weights not in kinds:
            raise ValueError(expected_one("weights", weights, kinds))
        check_threads(threads)
        limit = None if memory is None else parse_size("memory", memory)
        rank = 0 if group is None else group.rank
        checkpoint = open_checkpoint(path, quantize=quantize, rank=rank)
        stack = checkpoint if isinstance(checkpoint, StackFile) else None
        if limit is not None:
            check_stack(checkpoint, "memory").limit(limit)
        if stack and (deltas or lora is not None):
            what = "deltas" if deltas else "lora"
            raise ValueError(f"{what}: the model is a stack of residual blocks, expected no {what}")
        most = checkpoint.config.context
        if context is not None and not 1 <= operator.index(context) <= most:
            raise ValueError(f"context={context}: expected 1 to {most}")
        part = () if group is None else group.part
        loaded = load_weights(checkpoint, kinds[weights], progress, *part)
        tuned = {name: read_delta(each, loaded.config) for name, each in (deltas or {}).items()}
        adapter = None if lora is None else read_lora(lora, loaded.config)
        if context is not None:
            config = dataclasses.replace(loaded.config, context=operator.index(context))
            loaded = dataclasses.replace(loaded, config=config)
        model = cls(loaded, threads, head, cache, sparse, tuned, group, adapter)
        where = os.path.abspath(path) if path is not None and os.path.exists(path) else path
        model._open = functools.partial(open_checkpoint, where, quantize=quantize)
        model._stack = stack
        return model

    def limit(self, memory: int | str) -> None:
        """From now on use more or less of a stack of residual blocks: at most so many bytes of
        weights, or "1.2GB" of them, as they are in the file.

        What is more is read from the file when it is first used, what is less is let go of. Caches,
        activations and the int8 copy of a screened head come on top. Not while a pass runs; what a
        session has in its cache stays.
        Raises ValueError for less than one block of each matrix, and for another model.
        """
        check_stack(self._stack, "limit").limit(parse_size("memory", memory))

    def logits(self, token_ids: Sequence[int], delta: str | None = None) -> npt.NDArray[np.float32]:
        """float32 (tokens, vocabulary): the prediction after each token of one sequence.

        delta: the fine-tune to predict with, by default the base.

        Raises ValueError for no tokens, an unknown one, or more than the context holds.
        """
        tokens = self.check_tokens(token_ids)
        result = np.empty((len(tokens), self.config.vocabulary), np.float32)
        done = 0
        for part in Session(self, delta=delta).each_logits(tokens):
            result[done : done + len(part)] = part
            done += len(part)
        return result

    def generate(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop_at_eos: bool = True,
        *,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        constraint: Constraint | None = None,
        prompt_lookup: int = 0,
        draft_model: Model | Session | None = None,
        draft_tokens: int = 4,
        progress: Progress | None = None,
        session: Session | None = None,
        delta: str | None = None,
    ) -> Iterator[int]:
        """Yield up to max_new_tokens token ids, fewer at an end token or where the context ends.

        temperature to logit_bias: see `Sampling`. constraint: rules out what may not come next.
        prompt_lookup: guess up to this many tokens from earlier text and check them in one pass;
        draft_model: let a smaller model with the same tokens, or a session of one whose cache is
        used, guess draft_tokens of them. The result is the same with either, drawn or not.
        progress: called with the tokens of the prompt that are read, and their number.
        session: one of this model, whose cache is used where it holds how the sequence begins.
        delta: the fine-tune to generate with, by default the session's, or the base.
        Raises ValueError at once for the tokens, as `logits`, and for settings out of range; later
        on ValueError for logits that are NaN, RuntimeError if the session has been used elsewhere.
        """
        tokens = self.check_tokens(token_ids)
        most = self.check_length(tokens, max_new_tokens)
        sampling = Sampling(
            temperature=temperature, top_p=top_p, seed=seed, top_k=top_k, min_p=min_p,
            repetition_penalty=repetition_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty, logit_bias=logit_bias or {},
        )  # fmt: skip
        sampling.check_vocabulary(self.config.vocabulary)
        sampler = Sampler(sampling, tokens, constraint)
        draft, count = draft_of(self, prompt_lookup, draft_model, draft_tokens)
        ends = self.config.eos if stop_at_eos else ()
        if session is None:
            session = Session(self, delta=delta)
        elif session.model is not self:
            raise ValueError("session: of another model, expected one of this model")
        elif delta not in (None, session.delta):
            raise ValueError(f"delta={delta!r}: expected {session.delta!r}, the session's, or None")
        return generate(session, tokens, most, sampler, ends, draft, count, progress)

    def embed(
        self,
        texts: Sequence[str],
        normalize: bool = True,
        *,
        dtype: str = "float32",
        ranges: npt.ArrayLike | None = None,
        prompt: str | None = None,
        truncate: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[Any]:
        """float32 (texts, hidden): each text's normed hidden states, pooled as its files say.

        The last token's or the mean of all, by modules.json and what it names, a GGUF file's
        pooling_type or what `quantize` kept of either; without any, the last token's, as of
        BitNet's embedding models. The tokenizer adds the tokens that its files say (EOS and the
        like). The same text has the same bits in any order and company, on any number of threads.
        normalize: to length 1. dtype, ranges: "int8" or "binary", see `quantize_embeddings`.
        prompt: before each text (default: the one that the files name for that). truncate: cut off
        what is more than the context, or than the files' limit. progress: called with the texts
        done and their number.
        Raises TypeError for what are no strings, ValueError, naming the text, for one that is too
        long or has no tokens, and for a pooling that is not known; errors of the tokenizer's files.
        """
        texts = check_texts(texts)
        check_dtype(dtype, ranges, self.config.hidden)
        if texts:
            source = self._texts_of_files()
            prompt = source.prompt(None) if prompt is None else prompt
            tokens = source.tokens(texts, prompt, self.config.context, truncate)
            embed = self._embedder or Embedder(self)
            self._embedder = None  # another thread makes its own meanwhile
            found = embed(tokens.ids, source.pooling.mode == MEAN, tokens.skipped, progress)
            self._embedder = embed
        else:
            found = np.empty((0, self.config.hidden), np.float32)
        return quantize_embeddings(unit_length(found) if normalize else found, dtype, ranges)

    def encode(
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
        precision: str = "float32",
        normalize_embeddings: bool = False,
    ) -> npt.NDArray[Any]:
        """As `SentenceTransformer.encode`, so that a model can stand for one: (hidden,) for a
        string, (sentences, hidden) for a list.

        prompt_name: one of the prompts of config_sentence_transformers.json (default: its
        default_prompt_name); prompt: another text. Texts that are too long are cut off. They have
        length 1 if the files say so or normalize_embeddings does. precision: `embed`'s dtype.
        batch_size, show_progress_bar: count for nothing.
        """
        source, alone = self._texts_of_files(), isinstance(sentences, str)
        if prompt is None:
            prompt = source.prompt(prompt_name)
        found = self.embed(
            [sentences] if isinstance(sentences, str) else sentences,
            normalize_embeddings or source.pooling.normalizes,
            dtype=precision, prompt=prompt, truncate=True,
        )  # fmt: skip
        return found[0] if alone else found

    def _texts_of_files(self) -> Texts:
        if self._texts is None:
            if self._open is None:
                raise ValueError(
                    "model: made of weights alone, expected one of from_pretrained, which knows "
                    "its tokenizer"
                )
            self._texts = Texts(self._open())
        return self._texts

    def check_length(self, tokens: list[int], max_new_tokens: int) -> int:
        """How many tokens can follow, at most max_new_tokens; raises TypeError or ValueError."""
        if operator.index(max_new_tokens) < 0:
            raise ValueError(f"max_new_tokens={max_new_tokens}: expected 0 or more")
        return min(max_new_tokens, self.config.context - len(tokens) + 1)

    def check_tokens(self, token_ids: Sequence[int]) -> list[int]:
        """A sequence of tokens as a list; raises TypeError or ValueError if it is not one."""
        if isinstance(token_ids, str):
            raise TypeError("token_ids: a string, expected integers (tokenize it first)")
        try:
            tokens = [operator.index(token) for token in token_ids]
        except TypeError as error:
            raise TypeError(f"token_ids: {error}, expected integers") from None
        if not tokens:
            raise ValueError("token_ids: empty, expected at least one token")
        if len(tokens) > self.config.context:
            raise ValueError(
                f"token_ids: {len(tokens)} tokens, expected at most the context of "
                f"{self.config.context}"
            )
        for token in tokens:
            if not 0 <= token < self.config.vocabulary:
                raise ValueError(
                    f"token_ids: {token} is no token, expected 0 to {self.config.vocabulary - 1}"
                )
        return tokens
