"""What the handlers of a server share: the model, its texts, the engine, and the limits."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

from ternops.decoder.batch import Batch
from ternops.decoder.embed import Embedder
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.sampling import recommended
from ternops.decoder.model import Model
from ternops.decoder.sampling import Sampling
from ternops.decoder.texts import Texts
from ternops.serve.constraint import Constraints
from ternops.serve.engine import Engine
from ternops.serve.errors import ApiError
from ternops.serve.generation import Generation, Wish
from ternops.serve.limits import Limits
from ternops.serve.metrics import Metrics
from ternops.serve.prompts import Prompts
from ternops.serve.requests import Sampled
from ternops.serve.vocabulary import Vocabulary

#: Parameters of requests that `Batch.add` knows by the same names, and takes as they are.
_SAMPLING = [
    each.name for each in dataclasses.fields(Sampling) if each.name not in ("logit_bias", "seed")
]
#: OpenAI's default; for what the model's files do not say.
_TEMPERATURE = 1.0


class Serving:
    """A model under a name, ready to be asked. delta: the fine-tune that answers.

    Raises ModuleNotFoundError, FileNotFoundError and ValueError for what is wrong with its files.
    """

    def __init__(
        self, model: Model, checkpoint: Checkpoint, name: str, limits: Limits,
        delta: str | None = None,
    ) -> None:  # fmt: skip
        self.model, self.checkpoint, self.name, self.limits = model, checkpoint, name, limits
        self.created = int(time.time())
        self.prompts = Prompts(checkpoint, model.config.context)
        self.vocabulary = Vocabulary(self.prompts.tokenizer, model.config)
        self.constraints = Constraints(self.vocabulary)
        self._defaults = {"temperature": _TEMPERATURE, **recommended(checkpoint.sampling())}
        self.metrics = Metrics()
        self.delta = delta
        self.engine = Engine(self._make_batch, limits, self.metrics)

    def check_model(self, name: str | None) -> None:
        """ApiError 404 for another model than this one."""
        if name not in (None, self.name):
            words = f"model: {name!r} is not served here, expected {self.name!r}"
            raise ApiError(404, words, "model", "model_not_found")

    def settings(self, asked: Sampled, most: int | None, choice: int) -> dict[str, Any]:
        """What `Batch.add` takes for one of the choices of a request.

        most: tokens; None for all that there is room for. The first choice of a seed is that of a
        request for one; each other one has the next seed.
        """
        given = {name: getattr(asked, name) for name in _SAMPLING}
        found = dict(self._defaults)
        found |= {name: value for name, value in given.items() if value is not None}
        if asked.logit_bias:
            found["logit_bias"] = {int(token): bias for token, bias in asked.logit_bias.items()}
        if asked.seed is not None:
            found["seed"] = asked.seed + choice
        try:
            Sampling(**found).check_vocabulary(self.model.config.vocabulary)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        return {**found, "max_new_tokens": most, "delta": self.delta}

    def generate(self, wishes: Sequence[Wish]) -> Generation:
        """Begin; ApiError 429 if too much is under way."""
        generation = Generation(self.engine, self.prompts.tokenizer, wishes)
        self.metrics.prompt_tokens.inc(sum(len(each.prompt) for each in wishes))
        return generation

    @functools.cached_property
    def texts(self) -> Texts:
        """How texts are embedded; ApiError 400 for a pooling that is not computed here."""
        try:
            return Texts(self.checkpoint)
        except ValueError as error:
            raise ApiError(400, str(error)) from None

    @functools.cached_property
    def embedder(self) -> Embedder:
        """Of the engine's thread."""
        return Embedder(self.model)

    def _make_batch(self) -> Batch:
        self.__dict__.pop("embedder", None)  # whatever state a failure has left it in
        return Batch(self.model, self.limits.parallel, kv_memory=self.limits.kv_memory)
