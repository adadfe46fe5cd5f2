"""/v1/embeddings: vectors of texts, of length 1."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ternops.decoder.embed import Embedder, unit_length
from ternops.decoder.formats.pooling import MEAN
from ternops.decoder.texts import TokenizedTexts
from ternops.decoder.workspace import MAX_TOKENS
from ternops.serve.answers import EmbeddingItem, Embeddings, EmbeddingUsage, to_dict
from ternops.serve.errors import ApiError
from ternops.serve.http import read_body, unless_gone
from ternops.serve.requests import EmbeddingRequest
from ternops.serve.serving import Serving

Vectors = npt.NDArray[np.float32]


async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    serving: Serving = request.app.state.serving
    asked = await read_body(request, EmbeddingRequest, serving.limits)
    serving.check_model(asked.model)
    hidden = serving.model.config.hidden
    if asked.dimensions not in (None, hidden):
        raise ApiError(400, f"dimensions={asked.dimensions}: expected {hidden}", "dimensions")
    tokens = await asyncio.to_thread(_tokens, serving, asked)
    return await unless_gone(request, _answer(serving, asked, tokens))


def _tokens(serving: Serving, asked: EmbeddingRequest) -> TokenizedTexts:
    """Those of every input, with the prompt of the model's files before texts."""
    texts, context = serving.texts, serving.model.config.context
    written = [each for each in asked.inputs if isinstance(each, str)]
    if written:
        try:
            return texts.tokens(written, texts.prompt(None), context, False, "input")
        except ValueError as error:
            raise ApiError(400, str(error), "input") from None
    tokens = [each for each in asked.inputs if isinstance(each, list)]
    return TokenizedTexts([serving.prompts.checked(each, "input") for each in tokens], 0)


async def _answer(serving: Serving, asked: EmbeddingRequest, tokens: TokenizedTexts) -> Response:
    work = _parts(serving.embedder, serving.texts.pooling.mode == MEAN, tokens)
    found = await serving.engine.call(work)
    # Thousands of vectors take seconds to write.
    return await asyncio.to_thread(_response, serving, asked, tokens, found)


def _response(
    serving: Serving, asked: EmbeddingRequest, tokens: TokenizedTexts, parts: list[Vectors]
) -> Response:
    found = unit_length(np.concatenate(parts))
    data = [
        EmbeddingItem(index=number, embedding=_written(row, asked.encoding_format))
        for number, row in enumerate(found)
    ]
    count = sum(map(len, tokens.ids))
    usage = EmbeddingUsage(prompt_tokens=count, total_tokens=count)
    return JSONResponse(to_dict(Embeddings(data=data, model=serving.name, usage=usage)))


def _parts(embedder: Embedder, mean: bool, tokens: TokenizedTexts) -> list[Callable[[], Vectors]]:
    """Neighbours that fit one pass are a part, between which others are decoded. The vectors are
    the same in any company."""
    parts: list[list[list[int]]] = [[]]
    room = MAX_TOKENS
    for each in tokens.ids:
        if parts[-1] and len(each) > room:
            parts.append([])
            room = MAX_TOKENS
        parts[-1].append(each)
        room -= len(each)
    return [partial(embedder, part, mean, tokens.skipped) for part in parts]


def _written(row: Sequence[Any] | Vectors, form: str | None) -> list[float] | str:
    """Numbers, the shortest decimals that are these float32; or little-endian base64."""
    if form == "base64":
        return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode("ascii")
    return [float(str(each)) for each in row]
