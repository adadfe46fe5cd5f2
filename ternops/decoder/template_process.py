"""The process that renders chat templates: a program by itself, which imports nothing of ternops.

A template is a program that came with a model. Jinja's sandbox keeps it from Python's objects, and
does not keep it from running for ever, or from making a text of terabytes out of a few characters;
so it runs here, where the system ends what takes too long and refuses memory, files and further
processes, whatever the sandbox has let through.

A line of JSON on stdin is a request, a line on stdout its answer: {"source", "special_tokens",
"messages", "tools"} (or {"source"}, to check it) gives {"text"} or {"error"}. The first line is the
path that jinja2 is found by; without it the only answer is {"missing"}.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib
import json
import signal
import sys
from typing import Any, NoReturn

#: Of a template's rendering: seconds of CPU time, bytes that the process may have, and characters
#: of the text.
SECONDS, MEMORY, MOST_CHARACTERS = 2.0, 512 << 20, 1 << 24

#: Templates that use what others may, one of which fails.
_FIRST = (
    "{% for m in messages %}{{ m | tojson(indent=1) | indent }}{{ 'a\\n\\u00e9' }}{% endfor %}"
    "{{ messages | map(attribute='a') | join }}{{ strftime_now('%c %Z') }}{{ '%s' | format(1) }}",
    "{% macro f() %}{{ nothing.of.it }}{% endmacro %}{{ f() }}",
    "{{",
)


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> Any:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}...{% endgeneration %}``: what is inside."""

        tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(source)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: Any = None, sort_keys: bool = False) -> str:  # fmt: skip
    """Jinja's own would escape characters for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        template = _compiled(request["source"])
        if "messages" not in request:
            return {"text": ""}
        text = template.render(
            **request["special_tokens"], messages=request["messages"], add_generation_prompt=True,
            tools=request["tools"], documents=None,
        )  # fmt: skip
    except MemoryError:
        return {"error": f"takes more than {MEMORY >> 20} MB of memory"}
    except Exception as error:  # templates are programs, which may fail in any way
        return {"error": _one_line(error)}
    if len(text) > MOST_CHARACTERS:
        return {"error": f"makes {len(text)} characters, expected at most {MOST_CHARACTERS}"}
    return {"text": text}


def _one_line(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    text = " ".join(str(error)[:2000].split())
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)[:400]
    return f"line {line}: {text}" if line else text or type(error).__name__


def _limit() -> None:
    """Of memory, files and processes, where the system knows limits; of time `main` sets one."""
    # What Python and Jinja import while a template is compiled, runs, or fails: later no file can
    # be opened.
    for each in ("ascii", "latin_1", "raw_unicode_escape", "unicode_escape"):
        importlib.import_module(f"encodings.{each}")
    for each in ("jinja2.debug", "jinja2.constants", "pprint"):
        importlib.import_module(each)
    for each in _FIRST:
        _answer({"source": each, "special_tokens": {}, "messages": [{"a": "b"}], "tools": None})
    with contextlib.suppress(ImportError):
        import resource

        for name, most in (
            ("RLIMIT_AS", MEMORY), ("RLIMIT_NOFILE", 3), ("RLIMIT_FSIZE", 0),
            ("RLIMIT_NPROC", 0), ("RLIMIT_CORE", 0),
        ):  # fmt: skip
            with contextlib.suppress(AttributeError, OSError, ValueError):
                resource.setrlimit(getattr(resource, name), (most, most))


def main() -> None:
    """Answer until there are no more requests."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.path[:] = json.loads(requests.readline())
    try:
        _limit()
    except ImportError as error:
        answers.write(json.dumps({"missing": str(error)}).encode() + b"\n")
        return
    for line in requests:
        if hasattr(signal, "ITIMER_PROF"):  # its signal ends a process, also one amid a product
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
        answer = json.dumps(_answer(json.loads(line))).encode()
        if hasattr(signal, "ITIMER_PROF"):
            signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(answer + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
