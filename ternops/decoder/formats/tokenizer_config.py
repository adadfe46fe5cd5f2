"""What a Hugging Face folder says of its special tokens and of chats; no package is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ternops.decoder.formats.json_files import read_optional

_FILE = "tokenizer_config.json"


def special_tokens(folder: Path) -> dict[str, str]:
    """ "bos_token" and "eos_token", each where tokenizer_config.json names one."""
    settings = read_optional(folder / _FILE)
    tokens = {}
    for name in ("bos_token", "eos_token"):
        value = settings.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            tokens[name] = content
        elif value is not None:
            raise ValueError(f"{_FILE}: {name} is {value!r}, expected a string")
    return tokens


def end_token(folder: Path) -> int | None:
    """The id of eos_token: that of the added token of tokenizer.json with this text, if any."""
    text = special_tokens(folder).get("eos_token")
    if text is None:
        return None
    added = read_optional(folder / "tokenizer.json").get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and token.get("content") == text:
            number = token.get("id")
            if isinstance(number, int) and not isinstance(number, bool):
                return number
    return None


def chat_template(folder: Path) -> str | None:
    """The Jinja source in chat_template.jinja or else in tokenizer_config.json; None for neither.

    Of several templates it is the one named "default".
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"model: {str(path)!r} is not UTF-8: {error}") from None
    template: Any = read_optional(folder / _FILE).get("chat_template")
    try:
        if isinstance(template, list):
            template = {each["name"]: each["template"] for each in template}.get("default")
        if template is None or isinstance(template, str):
            return template
    except (KeyError, TypeError):
        pass
    raise ValueError(
        f"{_FILE}: chat_template is neither a string nor a list of objects with name and template"
    )
