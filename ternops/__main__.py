"""What this machine has, packed model files, text from models, and what a model would cost."""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from ternops.commands import chat, generate, perplexity, predict, quantize


def _info(arguments: argparse.Namespace) -> None:
    import ternops

    width = max(len(key) for key in ternops.info())
    for key, value in ternops.info().items():
        print(f"{key:<{width}}  {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ternops", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="CPU, instruction tier, threads, cache, versions")
    info.set_defaults(run=_info)
    for command in (quantize, generate, chat, perplexity, predict):
        command.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit code, or 2 after one line about what was wrong."""
    arguments = _parser().parse_args(argv)
    warnings.formatwarning = lambda message, *_: f"ternops: warning: {message}\n"
    try:
        if sys.stdout is None:
            raise ValueError("stdout: closed, expected somewhere to write to")
        code: int | None = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail("stdout: closed by its reader")
    except MemoryError as error:
        return _fail(f"not enough memory: {error}")
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    return code or 0


def _fail(line: str) -> int:
    print(f"ternops: error: {' '.join(line.splitlines())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
