"""From the messages of a chat to one text, by the Jinja template of a model.

Templates come with a model. They find what transformers gives them: messages,
add_generation_prompt, the special tokens by name, raise_exception, strftime_now, tojson, loop
controls and ``{% generation %}``, which marks what the model said and prints it. They run in
Jinja's sandbox, and that in a process of its own (`template_process`), one for all templates, which
has no files, little memory and little time.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from ternops.decoder.template_process import SECONDS

#: "role": "system", "user" or "assistant", and "content": the text; what else templates know, such
#: as "tool_calls".
Message = dict[str, Any]

#: Seconds after which the process is ended though it has not used its own: it was stopped, or the
#: system has no limits of CPU time.
_PATIENCE = 30.0


class ChatTemplate:
    """A template and the special tokens ("bos_token", "eos_token", ...) that it may name.

    Raises ModuleNotFoundError without the jinja2 package, ValueError for an invalid template.
    """

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        self._source, self._special_tokens = source, special_tokens
        _PROCESS[0].ask({"source": source})

    def render(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        """The text of the messages and the beginning of the model's answer to them.

        tools: what the model may call, as OpenAI's API describes functions. All is JSON.
        Raises ValueError if the template refuses the messages, fails, or takes more than two
        seconds, 512 MB or 16 million characters.
        """
        return _PROCESS[0].ask(
            {
                "source": self._source, "special_tokens": self._special_tokens,
                "messages": messages, "tools": tools,
            }
        )  # fmt: skip


class _Process:
    """Started when it is first asked, and anew after one that has ended. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any]) -> str:
        """The text; ValueError for a template that gives none."""
        try:
            line = json.dumps(request).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"chat template: messages that are no JSON: {error}") from None
        with self._lock:
            found = self._answered(line)
        if "missing" in found:
            raise ModuleNotFoundError("jinja2 is not installed: pip install 'ternops[llm]'")
        if "error" in found:
            raise ValueError(f"chat template: {found['error']}")
        return found["text"]

    def _answered(self, line: bytes) -> dict[str, str]:
        running = self._running
        if running is None or running.poll() is not None:
            running = self._running = _started()
        assert running.stdin
        assert running.stdout
        timer = threading.Timer(_PATIENCE, running.kill)
        timer.daemon = True
        timer.start()
        answer = b""
        try:
            with suppress(BrokenPipeError):
                running.stdin.write(line)
                running.stdin.flush()
                answer = running.stdout.readline()
        finally:
            timer.cancel()
            if not answer.endswith(b"\n"):  # also where Ctrl-C came amid an answer
                self.end()
        if not answer.endswith(b"\n"):
            return {"error": f"takes more than {SECONDS:g} s, or ends the process that renders it"}
        found: dict[str, str] = json.loads(answer)
        return found

    def end(self) -> None:
        """End it; what is asked next starts another one."""
        running, self._running = self._running, None
        if running is None:
            return
        running.kill()
        running.wait()
        for pipe in (running.stdin, running.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


def _started() -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("template_process.py")
    # Isolated: neither the environment nor the folder of that file says what it imports. A session
    # of its own: Ctrl-C is for who asks.
    running = subprocess.Popen(
        [sys.executable, "-I", "-X", "utf8", str(program)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=os.name == "posix",
    )  # fmt: skip
    assert running.stdin
    paths = [os.path.abspath(path) for path in sys.path]
    running.stdin.write(json.dumps(paths).encode() + b"\n")
    return running


#: The only one; another one in a forked child, which shares the pipes of its parent's.
_PROCESS = [_Process()]


def _forget() -> None:
    _PROCESS[0] = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _PROCESS[0].end())
