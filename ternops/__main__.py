"""``python -m ternops``: what this machine has, and text from a model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator


def _info(arguments: argparse.Namespace) -> None:
    import ternops

    width = max(len(key) for key in ternops.info())
    for key, value in ternops.info().items():
        print(f"{key:<{width}}  {value}")


def _generate(arguments: argparse.Namespace) -> None:
    from ternops.decoder.checkpoint import open_checkpoint
    from ternops.decoder.model import Model
    from ternops.decoder.text import stream_text

    tokenizer = open_checkpoint(arguments.model).tokenizer()
    model = Model.from_pretrained(
        arguments.model, weights=arguments.weights, threads=arguments.threads,
        progress=_show_loading,
    )  # fmt: skip
    prompt = tokenizer.encode(arguments.prompt).ids
    tokens = model.generate(
        prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
    )
    print(arguments.prompt, end="", flush=True)
    clock = _Clock(tokens)
    try:
        for text in stream_text(tokenizer, clock):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        pass  # the figures so far are what the user wants to see
    print()
    print(f"[{clock.summary()}, {model.threads} thread(s), {arguments.weights}]", file=sys.stderr)


class _Clock:
    """Passes tokens on and times all but the first, which waits for prompt and compiler."""

    def __init__(self, tokens: Iterator[int]) -> None:
        self._tokens = tokens
        self._count = 0
        self._start = self._last = 0.0

    def __iter__(self) -> Iterator[int]:
        for token in self._tokens:
            self._last = time.perf_counter()
            self._start = self._start or self._last
            self._count += 1
            yield token

    def summary(self) -> str:
        if self._count < 2:
            return f"{self._count} token(s), too few for a rate"
        rate = (self._count - 1) / (self._last - self._start)
        return f"{self._count} tokens, {rate:.1f} tokens/s"


def _show_loading(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rloading layer {done} of {total}", end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ternops", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    info = commands.add_parser("info", help="CPU, instruction tier, threads, cache, versions")
    info.set_defaults(run=_info)

    generate = commands.add_parser("generate", help="continue a text, streaming")
    generate.add_argument("--model", metavar="DIR", help="Hugging Face folder (default: tiny)")
    generate.add_argument("--prompt", required=True, metavar="TEXT")
    generate.add_argument("--weights", choices=("ternary", "fp16"), default="ternary")
    generate.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    generate.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    generate.add_argument("--top-p", type=float, default=1.0, metavar="P")
    generate.add_argument("--seed", type=int)
    generate.add_argument("--threads", type=int, metavar="N")
    generate.set_defaults(run=_generate)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0, or 2 after one line about what was wrong."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        print(f"ternops: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
