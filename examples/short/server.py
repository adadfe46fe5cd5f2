"""A server with OpenAI's API, and a client of it that needs no package.

    python examples/short/server.py

The server is `python -m ternops serve`, in a process of its own; a client of OpenAI's takes the
same address as its `base_url`.
"""

import contextlib
import json
import re
import subprocess
import sys
import urllib.request


@contextlib.contextmanager
def server(*options):
    """Gives its address, http://127.0.0.1:PORT/v1, once it listens; ends it at the end."""
    command = [sys.executable, "-m", "ternops", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr.readline, "")
            yield next(match[1] for line in lines if (match := re.search(r"(http\S+/v1) ", line)))
        finally:
            process.terminate()


def ask(url, **body):
    """The answer as it comes: lines of JSON."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        yield from answer


with server() as address:
    body = {"prompt": "import ", "max_tokens": 8, "temperature": 0}
    whole = json.loads(b"".join(ask(f"{address}/completions", **body)))
    print("whole:", repr(whole["choices"][0]["text"]))

    text = ""
    for line in ask(f"{address}/completions", **body, stream=True):
        if line.startswith(b"data: {"):
            text += json.loads(line[6:])["choices"][0]["text"]  # as soon as it is there
    print("streamed:", repr(text))
