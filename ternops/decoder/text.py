"""Between text and tokens: the folder's tokenizer.json, read by the tokenizers package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    Raises ModuleNotFoundError without the tokenizers package, FileNotFoundError or ValueError for
    a file that is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"model: {str(folder)!r} has no tokenizer.json")
    return parse_tokenizer(path.read_bytes(), f"model: {str(path)!r}")


def parse_tokenizer(data: bytes, source: str) -> Tokenizer:
    """A tokenizer from the bytes of a tokenizer.json; `source` says in errors where they are from.

    Raises ModuleNotFoundError without the tokenizers package, ValueError for damaged bytes.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "tokenizers is not installed: pip install 'ternops[llm]'"
        ) from None
    try:
        return Tokenizer.from_buffer(data)
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{source} is no tokenizer: {error}") from None


def stream_text(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Text as soon as its tokens make whole characters."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)
    for token in tokens:
        text = stream.step(tokenizer, token)
        if text:
            yield text
