"""What this machine has and is tuned for, packed models, text, and what a model would cost."""

from __future__ import annotations

import sys

try:
    import argparse
    import io
    import os
    import warnings
    from contextlib import suppress
    from typing import TextIO

    import ternops
    from ternops.ranks import world
except KeyboardInterrupt:  # `main` takes it from here on
    sys.exit(130)


def _info(arguments: argparse.Namespace) -> None:
    told = ternops.info()
    width = max(len(key) for key in told)
    for key, value in told.items():
        print(f"{key:<{width}}  {value}")


def _parser() -> argparse.ArgumentParser:
    from ternops.commands import (
        allocate,
        chat,
        delta,
        embed,
        evaluate,
        generate,
        perplexity,
        predict,
        quantize,
        serve,
        stack,
        tune,
        warmup,
    )
    from ternops.commands.parser import Parser

    parser = Parser(prog="python -m ternops", description=__doc__)
    parser.add_argument("--version", action="version", version=f"ternops {ternops.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="CPU, instruction tier, threads, cache, versions")
    info.set_defaults(run=_info)
    for command in (
        quantize, stack, allocate, delta, generate, chat, serve, embed, perplexity, evaluate,
        predict, tune, warmup,
    ):  # fmt: skip
        command.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit code, or 2 after one line about what was wrong."""
    if sys.stderr is None:  # else it would be the next file that is opened
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    try:
        try:
            code = _run(argv) if world.size() == 1 else _run_together(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        return _fail("stdout: closed by its reader")
    except MemoryError as error:
        return _fail(f"not enough memory: {error}")
    except (ValueError, TypeError, OSError, ImportError, Warning) as error:  # -W error
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    except SystemExit:  # argparse has said what there is to say
        _settle()
        raise
    return code


def _run(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    warnings.formatwarning = lambda message, *_: f"ternops: warning: {message}\n"
    _ = ternops.info  # the kernels, which `import ternops` has left until now
    if sys.stdout is None:
        raise ValueError("stdout: closed, expected somewhere to write to")
    _replace_characters(sys.stdout)
    code: int | None = arguments.run(arguments)
    return code or 0


def _run_together(argv: list[str] | None) -> int:
    """`_run` in the first of the processes that mpirun has started; the others decode with it."""
    if (sys.argv[1:] if argv is None else argv)[:1] == ["calibrate"]:
        return _run(argv)  # which all do together
    try:
        world.mpi()
    except ImportError:
        if world.rank() == 0:
            raise
        return 2  # it is said once
    from ternops.ranks.launch import run

    def led() -> int:
        try:
            return _run(argv)
        except SystemExit as end:  # of argparse
            return end.code if isinstance(end.code, int) else 1

    return run(led)


def _replace_characters(file: TextIO) -> None:
    """What the encoding of a file has not becomes a question mark: neither an answer nor what was
    done fails for a character that cannot be shown."""
    if isinstance(file, io.TextIOWrapper) and file.errors in ("strict", "surrogateescape"):
        file.reconfigure(errors="replace")


def _fail(line: str) -> int:
    with suppress(OSError):
        print(f"ternops: error: {' '.join(line.splitlines())}", file=sys.stderr)
    _settle()
    return 2


def _settle() -> None:
    """Let go of what cannot be printed: Python would complain once more at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
