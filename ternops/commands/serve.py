"""``python -m ternops serve``: a model behind HTTP, as OpenAI's API has it."""

from __future__ import annotations

import argparse
import errno
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from ternops.commands import options

#: Where the key is looked for without --api-key: other users see the arguments of a process.
_KEY = "TERNOPS_API_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
#: Seconds that a Python thread may keep another waiting. The engine needs some microseconds of
#: Python between two steps, for which Python's own 5 ms would be a step of a small model.
_SWITCH_INTERVAL = 0.0005
#: What browsers say a page comes from.
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\s]+")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "serve", help="answer HTTP requests, as OpenAI's API has them",
        description="Answer the requests of clients of OpenAI's API, at http://HOST:PORT/v1, and "
        "show a page to chat with at http://HOST:PORT/.",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="to listen on; 0.0.0.0 for all of this machine (default: 127.0.0.1, this machine "
        "alone)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000")
    parser.add_argument(
        "--name", help="what requests call the model (default: the last part of --model)"
    )
    parser.add_argument(
        "--api-key", metavar="KEY",
        help=f"that requests must have (default: the environment's {_KEY}, or none)",
    )  # fmt: skip
    parser.add_argument(
        "--cors", nargs="+", default=[], metavar="ORIGIN",
        help="pages of other origins that may ask, as https://example.org (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=int, default=8, metavar="N", help="sequences at a time (default: 8)"
    )
    parser.add_argument(
        "--queue", type=int, default=64, metavar="N",
        help="sequences that may wait beside them; more are refused (default: 64)",
    )  # fmt: skip
    parser.add_argument(
        "--kv-memory", metavar="SIZE",
        help="of keys and values at most, as 800MB; a request waits until what it may need is free "
        "(default: enough for all)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S",
        help="seconds of a request at most (default: 600)",
    )  # fmt: skip
    parser.add_argument(
        "--grace", type=float, default=30.0, metavar="S",
        help="seconds for requests under way when told to stop (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--max-body", default="4MB", metavar="SIZE", help="of a request at most (default: 4MB)"
    )
    options.add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    try:
        import uvicorn

        from ternops.serve.app import make_app
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("ternops"):
            raise
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'ternops[serve]'"
        ) from None
    if not 0 <= arguments.port < 1 << 16:
        raise ValueError(f"--port {arguments.port}: expected 0 to {(1 << 16) - 1}")
    key = os.environ.get(_KEY) if arguments.api_key is None else arguments.api_key
    if key is not None and not key.strip():
        raise ValueError("--api-key: empty, expected a key")
    if arguments.name == "":
        raise ValueError("--name: empty, expected what requests call the model")
    for origin in arguments.cors:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"--cors {origin}: expected an origin without a path, as https://example.org, or *"
            )
    # Before the model is loaded, which takes longer than to learn of a port that is taken.
    with _listening(arguments.host, arguments.port) as listener:
        serving = _serving(arguments)
        is_local = arguments.host in _LOOPBACK
        app = make_app(serving, key, arguments.cors, _LOOPBACK if is_local else ())
        options.note(f"{serving.name}: {options.describe(serving.model)}")
        if not is_local and key is None:
            options.note(f"--host {arguments.host}: whoever reaches it may ask, without a key")
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        options.note(f"{url}/ is a page, {url}/v1 OpenAI's API")
        sys.setswitchinterval(_SWITCH_INTERVAL)
        config = uvicorn.Config(
            app, lifespan="on", access_log=False, log_level="warning", server_header=False,
            ws="none", timeout_graceful_shutdown=arguments.grace,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        if error.errno == errno.EADDRINUSE:
            words = "address already in use; --port 0 takes a free one"
        raise OSError(f"--host {host} --port {port}: {words}") from None


def _serving(arguments: argparse.Namespace) -> Any:
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.serve.limits import Limits
    from ternops.serve.serving import Serving
    from ternops.sizes import parse_size

    memory = arguments.kv_memory
    if memory is not None:
        memory = parse_size("--kv-memory", memory)
    limits = Limits(
        parallel=arguments.parallel, queue=arguments.queue, kv_memory=memory,
        max_body=parse_size("--max-body", arguments.max_body), timeout=arguments.timeout,
        grace=arguments.grace,
    )  # fmt: skip
    checkpoint = open_checkpoint(arguments.model, quantize=arguments.quantize)
    options.chosen_context(arguments, checkpoint.config, checkpoint.config.context)
    model = options.load_model(arguments)
    session = options.start_session(model)
    name = arguments.name or Path(arguments.model or "tiny").resolve().name
    return Serving(model, checkpoint, name, limits, session.delta)
