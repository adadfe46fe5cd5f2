"""Tokenizers, chat templates and prompts: programs and texts of others."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ternops.decoder.chat import ChatTemplate
from ternops.decoder.formats.loading import TINY, open_checkpoint
from ternops.decoder.formats.tried_tokenizer import tried
from ternops.decoder.literal import ChatEncoder
from ternops.decoder.text import TextDecoder, load_tokenizer
from tests.fuzz.mutations import of_json, of_text
from tests.fuzz.target import Finding, Target, in_one_line, new_folder
from tests.helpers.gguf_files import TEXTS
from tests.helpers.serving import TEMPLATE

_MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "a <|end_of_text|> 'b' \n"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
]


@cache
def _folder() -> Path:
    folder = new_folder()
    shutil.copytree(TINY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safet*"))
    return folder


def _tokenizer_seeds() -> Sequence[bytes]:
    """Both files of a folder in one object; few words, so that edits meet what is around them."""
    file = json.loads((TINY / "tokenizer.json").read_text())
    settings = json.loads((TINY / "tokenizer_config.json").read_text())
    seeds = []
    for kind in (None, "LlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer"):
        small = json.loads(json.dumps(file))
        kept = sorted(small["model"]["vocab"].items(), key=lambda each: each[1])[:260]
        small["model"]["vocab"], small["model"]["merges"] = dict(kept), []
        added = {**settings, "tokenizer_class": kind} if kind else settings
        seeds.append(json.dumps({"file": small, "settings": added}).encode())
    return seeds


def _tokenizer(data: bytes) -> bool:
    folder = _folder()
    try:
        both = json.loads(data)
        file, settings = json.dumps(both["file"]), json.dumps(both["settings"])
    except (ValueError, TypeError, KeyError, RecursionError):
        file, settings = data.decode("utf-8", "replace"), "{}"
    (folder / "tokenizer.json").write_text(file, "utf-8", "replace")
    (folder / "tokenizer_config.json").write_text(settings, "utf-8", "replace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with in_one_line():
            tokenizer = tried(lambda: load_tokenizer(folder), "model: the file")
            for text in ("a b", "def f(x):\n", "\u00e9\u4f60"):
                try:
                    tokens = tokenizer.encode(text).ids
                    tokenizer.decode(tokens)
                except Exception:
                    return False
    return True


def _template_seeds() -> Sequence[bytes]:
    found = [TEMPLATE, (TINY / "chat_template.jinja").read_text(),
             "{% for i in range(9) %}{{ i }}{% endfor %}{% macro f(a) %}{{ a * 3 }}{% endmacro %}"
             "{{ f('x') | upper | indent(2) }}{% set ns = namespace(x=1) %}"
             "{{ ns.x ~ messages }}"]  # fmt: skip
    return [each.encode() for each in found]


def _template(data: bytes) -> bool:
    with in_one_line(ValueError):
        ChatTemplate(data.decode("utf-8", "replace"), {"bos_token": "<s>"}).render(_MESSAGES)
    return True


@cache
def _tiny() -> tuple[Any, ChatEncoder, ChatEncoder]:
    checkpoint = open_checkpoint(None)
    template = ChatTemplate(TEMPLATE, checkpoint.special_tokens())
    tokenizer = checkpoint.tokenizer()
    return tokenizer, ChatEncoder(template, tokenizer), ChatEncoder(template, tokenizer, False)


def _prompt_seeds() -> Sequence[bytes]:
    return [text.encode() for text in TEXTS]


def _prompt(data: bytes) -> bool:
    """Text as it comes, joined, is the text of all; a chat's tokens decode to its text."""
    tokenizer, plain, literal = _tiny()
    text = data.decode("utf-8", "replace")
    tokens = tokenizer.encode(text).ids
    half = len(tokens) // 2
    decoder = TextDecoder(tokenizer, [])
    streamed = "".join([*map(decoder.push, tokens), decoder.end()])
    if streamed != tokenizer.decode(tokens):
        raise Finding(f"{streamed!r} was streamed for {tokenizer.decode(tokens)!r}")
    behind = TextDecoder(tokenizer, tokens[:half])
    "".join([*map(behind.push, tokens[half:]), behind.end()])
    with in_one_line(ValueError):
        message = [{"role": "user", "content": text}]
        first, second = plain(message), literal(message)
    special = {each for each, token in tokenizer.get_added_tokens_decoder().items()
               if token.special}  # fmt: skip
    if len(special & set(second[1:])) or (not special & set(first[1:]) and first != second):
        raise Finding(f"control tokens of a text: {first} {second}")
    return True


_JINJA = (
    "{{", "}}", "{%", "%}", "{#", "#}", "-%}", " for i in range(100000) ", " endfor ", " if ",
    " endif ", " set x = x ~ x ", " set x = messages ", "| tojson", "| join", "| center(9999999)",
    ".__class__", ".__subclasses__()", "['__globals__']", "messages[0]", ".format(", "|attr('x')",
    "'a' * 99999999", "9 ** 9 ** 9", "raise_exception('x')", "strftime_now('%Y')", "loop.index",
    " macro f() ", " endmacro ", "f()", "namespace()", "cycler(1)", "lipsum(9999)", "dict(a=1)",
    "'%9999999d' % 1", "{% generation %}", "{% endgeneration %}", "{% break %}", " include 'x' ",
    " import 'x' as y ", " extends 'x' ", "| sort", "| map('upper')", "| batch(3)", "self", "\n",
)  # fmt: skip
_PIECES = (
    "<|end_of_text|>", "<|begin_of_text|>", "<|", "|>", "\U000f5700", "\U000f5701", "\U000f5702",
    "\U000f5703", "\ufffd", "\u0301", "\u200d", "\0", " ", "  ", "\n", "\ud800", "def ", "é", "你",
)  # fmt: skip
TARGETS = {
    each.name: each
    for each in (
        # A panic of the tokenizers package reads its own symbols.
        Target("tokenizer", _tokenizer_seeds, of_json, _tokenizer, touches=64 << 20),
        Target("template", _template_seeds, of_text(_JINJA), _template),
        Target("prompt", _prompt_seeds, of_text(_PIECES), _prompt),
    )
}
