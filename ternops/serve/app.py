"""The server as an ASGI application: its routes, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ternops import __version__
from ternops.serve import errors, openapi
from ternops.serve.answers import ModelCard, ModelList, to_dict
from ternops.serve.chat import chat_completions
from ternops.serve.completions import completions
from ternops.serve.embeddings import embeddings
from ternops.serve.guards import Counting, Ending, Guard
from ternops.serve.serving import Serving
from ternops.serve.tokens import detokenize, tokenize

_PAGE = Path(__file__).with_name("page.html")
#: The page loads nothing, and asks nobody but its server.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_app(
    serving: Serving, key: str | None = None, origins: Sequence[str] = (),
    hosts: Sequence[str] = (),
) -> Starlette:  # fmt: skip
    """The application. key: that requests must have. origins: of pages that may ask, beside the
    server's own. hosts: what it may be called in Host, empty for anything."""
    routes = [
        Route("/", _page(), methods=["GET"]),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/models", _models, methods=["GET"]),
        Route("/v1/models/{name:path}", _model, methods=["GET"]),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        Route("/health", _health, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
        Route("/openapi.json", partial(_json, openapi.document(__version__)), methods=["GET"]),
    ]
    paths = frozenset(each.path for each in routes)
    middleware = [
        Middleware(Counting, metrics=serving.metrics, paths=paths),
        Middleware(Ending),
        Middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client says in some what it runs on
        ),
        Middleware(Guard, key=key, hosts=tuple(hosts)),
    ]  # fmt: skip
    handlers = {
        errors.ApiError: errors.on_api_error,
        HTTPException: errors.on_http_error,
        Exception: errors.on_bug,
    }

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        serving.engine.start()
        yield
        await serving.engine.stop()

    app = Starlette(
        routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan
    )
    app.state.serving = serving
    return app


def _page() -> object:
    text = _PAGE.read_text("utf-8")

    async def page(request: Request) -> Response:
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})

    return page


async def _json(content: object, request: Request) -> Response:
    return JSONResponse(content)


def _card(serving: Serving) -> ModelCard:
    return ModelCard(
        id=serving.name, created=serving.created, max_model_len=serving.model.config.context,
        chat=serving.prompts.source is not None,
    )  # fmt: skip


async def _models(request: Request) -> Response:
    """GET /v1/models."""
    return JSONResponse(to_dict(ModelList(data=[_card(request.app.state.serving)])))


async def _model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    serving: Serving = request.app.state.serving
    serving.check_model(request.path_params["name"])
    return JSONResponse(to_dict(_card(serving)))


async def _health(request: Request) -> Response:
    """GET /health: 503 where requests would wait in vain."""
    serving: Serving = request.app.state.serving
    if serving.engine.stalled:
        raise errors.ApiError(503, "the engine makes no steps", code="stalled")
    return JSONResponse({"status": "ok"})


async def _metrics(request: Request) -> Response:
    """GET /metrics."""
    content, media_type = request.app.state.serving.metrics.text()
    return Response(content, media_type=media_type)
