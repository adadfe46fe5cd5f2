"""/tokenize and /detokenize: between texts and tokens."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ternops.decoder.text import encoded
from ternops.serve.answers import Detokenized, Tokens, to_dict
from ternops.serve.errors import ApiError
from ternops.serve.http import read_body
from ternops.serve.requests import DetokenizeRequest, TokenizeRequest
from ternops.serve.serving import Serving


async def tokenize(request: Request) -> Response:
    """POST /tokenize: of a text of any length."""
    serving: Serving = request.app.state.serving
    asked = await read_body(request, TokenizeRequest, serving.limits)
    serving.check_model(asked.model)
    special = asked.add_special_tokens is not False
    found = await asyncio.to_thread(encoded, serving.prompts.tokenizer, asked.prompt, special)
    context = serving.model.config.context
    answer = Tokens(tokens=found, count=len(found), max_model_len=context)
    return JSONResponse(to_dict(answer))


async def detokenize(request: Request) -> Response:
    """POST /detokenize: with the names of special tokens."""
    serving: Serving = request.app.state.serving
    asked = await read_body(request, DetokenizeRequest, serving.limits)
    serving.check_model(asked.model)
    vocabulary = serving.model.config.vocabulary
    if asked.tokens and max(asked.tokens) >= vocabulary:
        words = f"tokens: {max(asked.tokens)} is no token, expected 0 to {vocabulary - 1}"
        raise ApiError(400, words, "tokens")
    # Of one, since other threads run beside `decode_batch`, and do not beside `decode`.
    decode = serving.prompts.tokenizer.decode_batch
    texts = await asyncio.to_thread(decode, [asked.tokens], skip_special_tokens=False)
    return JSONResponse(to_dict(Detokenized(prompt=texts[0])))
