"""What a Hugging Face folder says of its special tokens and of chats; no package is needed.

The rules are those of transformers 5 (tokenization_utils_base.py, tokenization_utils_tokenizers.py
and tokenization_auto.py there). tokenizer_config.json comes first. special_tokens_map.json, which
overrules it, and added_tokens.json count only where it has no added_tokens_decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ternops.decoder.formats.json_files import read_optional
from ternops.decoder.formats.placeholders import check_fetched
from ternops.decoder.formats.tokenizer_classes import CLASSES, PLAIN, is_byte_level
from ternops.shown import shown

_FILE, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_TEMPLATES = "additional_chat_templates"
_NAMES = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_EXTRAS = _EXTRA, _OLD_EXTRA = ("extra_special_tokens", "additional_special_tokens")
_DECODER = "added_tokens_decoder"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

#: "content" and those flags that a file tells: the arguments of tokenizers.AddedToken.
Token = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What belongs to the tokenizer.json of a folder.

    kind: the class that transformers makes, a name in `CLASSES` or `PLAIN`; file: the
    tokenizer.json; raw: the tokenizer_config.json; named: special tokens by their names; extra:
    others; numbered: tokens by the ids that the files give them.
    """

    kind: str
    file: dict[str, Any]
    raw: dict[str, Any]
    named: dict[str, Token]
    extra: list[Token]
    numbered: dict[int, Token]

    def special_tokens(self) -> dict[str, str]:
        """The texts of the named ones."""
        return {name: token["content"] for name, token in self.named.items()}

    def tokens(self) -> list[Token]:
        """What is added to the tokenizer, in this order."""
        found = [self.numbered[number] for number in sorted(self.numbered)]
        known = {token["content"] for token in [*found, *self._present()]}
        special = [*self.named.values(), *self.extra]
        for token in special:
            if token["content"] not in known and token not in found:
                found.append(token)
        names = set(self.special_tokens().values())
        found = [{**token, "special": True} if token["content"] in names else token
                 for token in found]  # fmt: skip
        if CLASSES.get(self.kind, PLAIN).again:
            found += [{"content": token["content"], "special": True} for token in special]
        return found

    def token_id(self, text: str) -> int | None:
        """The number of a token, also of one that `tokens` adds; None for none."""
        model = self.file.get("model")
        words: Any = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(words, list):  # of Unigram: pairs of token and score
            words = {
                str(word[0]): at for at, word in enumerate(words) if word and type(word) is list
            }
        words = words.items() if isinstance(words, dict) else ()
        ids = {word: at for word, at in words if type(at) is int}
        size, most = len(ids), -1
        for token in self._present():
            if type(token.get("id")) is int:
                most = max(most, ids.setdefault(token["content"], token["id"]))
        for token in self.tokens() if size else ():
            if token["content"]:  # the package leaves out what is empty
                most = max(most, ids.setdefault(token["content"], max(size, most + 1)))
        return ids.get(text)

    def _present(self) -> list[Token]:
        """Those of tokenizer.json that a tokenizer has before any is added."""
        return [] if self.kind in CLASSES else _added_tokens(self.file)


def read_settings(folder: Path) -> Settings:
    """Of a Hugging Face folder; raises ValueError for a file that is damaged."""
    raw, file = read_optional(folder / _FILE), read_optional(folder / "tokenizer.json")
    more = {} if _DECODER in raw else read_optional(folder / _MAP)
    kind = _kind(raw, read_optional(folder / "config.json"), file)
    own = {name for name, value in raw.items() if _is_own(name) and isinstance(value, str)}
    more = {name: value for name, value in more.items() if name not in own}
    given = _named(_FILE, raw) | _named(_MAP, more)
    extra = _unnamed(raw, more)
    if _DECODER in raw:
        numbered = _decoder(raw[_DECODER])
    else:
        special = [*(given.get(name) for name in _NAMES), *extra.get(_EXTRA, [])]
        texts = {token["content"] for token in special if token}
        numbered = _encoder(read_optional(folder / _ADDED), texts) | {
            token["id"]: {key: token[key] for key in ("content", *_FLAGS) if key in token}
            for token in _added_tokens(file)
            if type(token.get("id")) is int
        }
    defaults = CLASSES.get(kind, PLAIN).named.items()
    values = {name: text and _token(_FILE, name, text) for name, text in defaults} | given
    padding = file.get("padding")
    if isinstance(padding, dict) and isinstance(padding.get("pad_token"), str):
        values.setdefault("pad_token", _token("tokenizer.json", "padding", padding["pad_token"]))
    objects = [name for name in values if isinstance(raw.get(name), dict) or name in more]
    order = dict.fromkeys([*_NAMES, *objects, *values])  # in which they are added
    named = {name: token for name in order if (token := values.get(name))}
    unnamed = extra.get(_EXTRA, extra.get(_OLD_EXTRA, []))
    return Settings(kind, file, raw, named, unnamed, numbered)


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of "bos_token", "eos_token" and the other tokens that have names."""
    return read_settings(folder).special_tokens()


def end_token(folder: Path) -> int | None:
    """The number of eos_token, if the tokenizer has one."""
    settings = read_settings(folder)
    end = settings.named.get("eos_token")
    return None if end is None else settings.token_id(end["content"])


def not_done(settings: Settings) -> Iterator[str]:
    """Lines about what the files ask for and nobody does here."""
    raw, kind = settings.raw, settings.kind
    known = kind in CLASSES or kind in PLAIN.names
    if kind in CLASSES and not CLASSES[kind].fits(settings.file):
        known = False
    if not known:
        own = " of the model's own code" if _code(raw) else ""
        yield f"tokenizer_class {shown(kind)}{own} is not known: tokenizer.json is used as it is"
    if raw.get("split_special_tokens"):
        yield "split_special_tokens is set: special tokens in a text are tokens all the same"
    model = settings.file.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else "BPE"
    if raw.get("clean_up_tokenization_spaces") and kind != "BPE":  # there nobody does it
        yield "clean_up_tokenization_spaces is set: spaces are left as they are"
    if raw.get("fast_tokenizer_files", ["tokenizer.json"]) != ["tokenizer.json"]:
        yield "fast_tokenizer_files names other files: tokenizer.json is used"


def chat_template(folder: Path) -> str | None:
    """The Jinja source of chats; None without one.

    It is that of additional_chat_templates/default.jinja, chat_template.jinja or
    tokenizer_config.json, the first that there is. Of several templates in the last it is the one
    named "default".
    """
    for path in (folder / _TEMPLATES / "default.jinja", folder / "chat_template.jinja"):
        if path.is_file():
            check_fetched(path)
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


def _kind(raw: dict[str, Any], config: dict[str, Any], file: dict[str, Any]) -> str:
    """The tokenizer's class; "Fast" at its end says nothing since transformers 5."""
    found = raw.get("tokenizer_class") or config.get("tokenizer_class") or PLAIN.names[0]
    if not isinstance(found, str):
        raise ValueError(f"{_FILE}: tokenizer_class is {shown(found)}, expected a string")
    kind = found.removesuffix("Fast")
    if kind == "LlamaTokenizer" and not _code(raw) and is_byte_level(file):
        return PLAIN.names[0]  # LLaMA 3's, under the name of LLaMA 2's
    return kind


def _code(raw: dict[str, Any]) -> Any:
    """What auto_map names."""
    names = raw.get("auto_map")
    return names.get("AutoTokenizer") if isinstance(names, dict) else names


def _named(file: str, raw: dict[str, Any]) -> dict[str, Token | None]:
    """The tokens of a file by their names; None where it says that it has no such token."""
    values = {
        key: value
        for key, value in raw.items()
        if key in _NAMES or (_is_own(key) and isinstance(value, str | dict))
    }
    for key in (_EXTRA, "model_specific_special_tokens"):
        values |= raw[key] if isinstance(raw.get(key), dict) else {}
    return {key: None if each is None else _token(file, key, each) for key, each in values.items()}


def _is_own(key: str) -> bool:
    """Whether it names a token as no other model does: tokenizer_config.json then comes first."""
    return key.endswith("_token") and key not in _NAMES


def _token(file: str, key: str, value: Any) -> Token:
    """A text or an object, as the arguments of an AddedToken."""
    if isinstance(value, str):
        return {"content": value, "special": True}
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {flag: value[flag] for flag in _FLAGS if flag in value}
        if all(type(flag) is bool for flag in flags.values()):
            return {"content": value["content"], **flags}
    raise ValueError(f"{file}: {key} is {shown(value)}, expected a string")


def _unnamed(raw: dict[str, Any], more: dict[str, Any]) -> dict[str, list[Token]]:
    """The tokens without names of tokenizer_config.json and special_tokens_map.json, by _EXTRAS:
    those under the old key count only without the new one."""
    found = {key: _tokens(_FILE, raw[key]) for key in _EXTRAS if key in raw}
    if _OLD_EXTRA in found and not raw.get(_EXTRA):
        found[_EXTRA] = found.pop(_OLD_EXTRA)
    elif isinstance(raw.get(_EXTRA), dict):
        del found[_EXTRA]
    later = {key: _tokens(_MAP, more[key]) for key in _EXTRAS if key in more}
    if isinstance(more.get(_EXTRA), list):
        special = [{**token, "special": True} for token in later[_EXTRA]]
        later[_EXTRA] = found.get(_EXTRA, []) + special
    found |= later
    if isinstance(more.get(_EXTRA), dict):
        del found[_EXTRA]
    return found


def _tokens(file: str, value: Any) -> list[Token]:
    """Special tokens without names; an object gives them names."""
    if value is None or isinstance(value, dict):
        return []
    if not isinstance(value, list):
        raise ValueError(
            f"{file}: {_EXTRA} is {shown(value)}, expected a list or an object of tokens"
        )
    return [_token(file, _EXTRA, each) for each in value]


def _decoder(value: Any) -> dict[int, Token]:
    """added_tokens_decoder: tokens by their numbers, which JSON makes strings."""
    if not isinstance(value, dict):
        raise ValueError(f"{_FILE}: {_DECODER} is {shown(value)}, expected an object")
    found = {}
    for key, token in value.items():
        if not key.isdecimal() or not isinstance(token, dict):
            raise ValueError(
                f"{_FILE}: {_DECODER}: {shown(key)}: {shown(token)}, expected a number and an "
                f"object"
            )
        found[int(key)] = _token(_FILE, f"{_DECODER} {key}", token)
    return found


def _encoder(value: dict[str, Any], special: set[str]) -> dict[int, Token]:
    """added_tokens.json: numbers by their tokens, which are special if another file says so."""
    found = {}
    for text, number in value.items():
        if type(number) is not int:
            raise ValueError(f"{_ADDED}: {shown(text)} is {shown(number)}, expected a number")
        is_special = text in special
        found[number] = {"content": text, "normalized": not is_special, "special": is_special}
    return found


def _added_tokens(file: dict[str, Any]) -> list[Token]:
    """Those of a tokenizer.json."""
    tokens = file.get("added_tokens")
    return [
        token
        for token in (tokens if isinstance(tokens, list) else [])
        if isinstance(token, dict) and isinstance(token.get("content"), str)
    ]
