"""The OpenAPI document of the server, from the models that its handlers check with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ternops.serve import answers, requests

#: What the server can also answer, by the status.
_FAILURES = {
    "400": "something in the request is wrong", "401": "no API key, or a wrong one",
    "403": "another Host than this server's", "404": "no such model",
    "408": "a body that does not come", "413": "too long a body", "415": "a body that is not JSON",
    "429": "too many requests under way, see Retry-After", "503": "the engine starts again",
}  # fmt: skip
#: Path -> method, what is asked, what is answered, whether it may be a stream, and what it is.
_ROUTES: dict[str, tuple[str, type[BaseModel] | None, type[BaseModel] | None, bool, str]] = {
    "/v1/chat/completions": (
        "post", requests.ChatRequest, answers.ChatCompletion, True, "The next message of a chat",
    ),
    "/v1/completions": (
        "post", requests.CompletionRequest, answers.Completion, True, "Continue texts",
    ),
    "/v1/embeddings": (
        "post", requests.EmbeddingRequest, answers.Embeddings, False, "Vectors of texts",
    ),
    "/v1/models": ("get", None, answers.ModelList, False, "The model that is served"),
    "/tokenize": ("post", requests.TokenizeRequest, answers.Tokens, False, "Tokens of a text"),
    "/detokenize": (
        "post", requests.DetokenizeRequest, answers.Detokenized, False, "Text of tokens",
    ),
    "/health": ("get", None, answers.Health, False, "Whether it works"),
    "/metrics": ("get", None, None, False, "Numbers for Prometheus"),
}  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """OpenAPI 3.1."""
    asked = [each[1] for each in _ROUTES.values() if each[1]]
    answered = [each[2] for each in _ROUTES.values() if each[2]]
    _, definitions = models_json_schema(
        [*((each, "validation") for each in asked),
         *((each, "serialization") for each in (*answered, answers.Failure))],
        ref_template="#/components/schemas/{model}",
    )  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "ternops", "version": version},
        "paths": {path: {route[0]: _operation(route)} for path, route in _ROUTES.items()},
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: tuple[str, type[BaseModel] | None, type[BaseModel] | None, bool, str]) -> Any:
    _, asked, answered, streams, what = route
    content = {"application/json": _schema(answered)} if answered else {"text/plain": {}}
    if streams:
        content["text/event-stream"] = {}  # of which OpenAPI 3.1 can say no more
    failure = {"application/json": _schema(answers.Failure)}
    failures = _FAILURES if asked else {key: _FAILURES[key] for key in ("401", "403", "503")}
    found: dict[str, Any] = {
        "summary": what,
        "responses": {
            "200": {"description": what, "content": content},
            **{key: {"description": each, "content": failure} for key, each in failures.items()},
        },
    }
    if asked:
        body = {"application/json": _schema(asked)}
        found["requestBody"] = {"required": True, "content": body}
    return found


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
