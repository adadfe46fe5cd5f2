"""Text like code, for measuring drafts from the prompt: calls that differ in a word."""

from __future__ import annotations

from ternops.decoder.formats.loading import open_checkpoint

_HEAD = """\
def main():
    parser = argparse.ArgumentParser()
"""
_LINE = """\
    parser.add_argument('--{word}', action='store_true', help='{word} the files')
"""
_WORDS = ("copy", "move", "delete", "list")


def prompt() -> list[int]:
    """The tokens of the text, for the tiny checkpoint's vocabulary."""
    text = _HEAD + "".join(_LINE.format(word=word) for word in _WORDS)
    return list(open_checkpoint().tokenizer().encode(text).ids)
