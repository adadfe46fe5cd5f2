"""The parser of command lines: one line about what is wrong with one, and what to type."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ternops.spelling import meant, one_of


class Parser(argparse.ArgumentParser):
    """argparse's, without the usage of a dozen lines above an error, and with what was meant by a
    command, an option or a value that is not known."""

    def error(self, message: str) -> NoReturn:
        """End the process with 2 and one line."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} ({self.prog} --help tells more)\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """argparse's; before it misses an option, it looks for one that is misspelt."""
        words = sys.argv[1:] if args is None else list(args)
        self._check_options(words)
        return super().parse_known_args(args, namespace)

    def _check_options(self, words: Sequence[str]) -> None:
        known = [each for each in self._option_string_actions if each.startswith("--")]
        takes_rest = self._subparsers or any(
            each.nargs == argparse.REMAINDER for each in self._actions
        )
        for word in words:
            name = word.partition("=")[0]
            if word == "--" or (takes_rest and not word.startswith("-")):
                return  # then come a command's own options
            if not word.startswith("--") or " " in word:
                continue  # a value, as argparse has it
            if not any(each.startswith(name) for each in known):
                more = "; expected a command before it" if self._subparsers else meant(name, known)
                self.error(f"{name}: no such option{more}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = list(action.choices or ())
        if choices and value not in choices:
            raise argparse.ArgumentError(action, f"{value!r}: {one_of(value, map(str, choices))}")
