"""What a folder says of embeddings, in the files of sentence-transformers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ternops.decoder.formats.json_files import read_object, read_optional
from ternops.decoder.formats.placeholders import check_fetched
from ternops.shown import shown

LAST, MEAN = "lasttoken", "mean"
_MODULES = "modules.json"
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": LAST,
}
#: Of a GGUF file's pooling_type, as llama.cpp numbers them.
GGUF_MODES = {1: MEAN, 3: LAST}
_NO_LIMIT = 2**31  # tokenizers write a number of thirty digits for none


@dataclass(frozen=True)
class Pooling:
    """How the hidden states of a text become one vector.

    mode: as sentence-transformers calls it; several are joined by "+". normalizes: whether a module
    makes vectors of length 1. includes_prompt: whether a mean is over the prompt's tokens as well.
    modules: what else it does. prompts: by their names; prompt: the name of the one without asking.
    lowers: whether texts are made lower case. max_tokens: of a text, 0 for no limit but the
    context. source: the file that says so, "" for none: then it is the last token's, as of
    microsoft's BitNet embedding models, of length 1.
    """

    mode: str = LAST
    normalizes: bool = True
    includes_prompt: bool = True
    modules: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None
    lowers: bool = False
    max_tokens: int = 0
    source: str = ""

    def check(self) -> None:
        """Raises ValueError for what is not computed here."""
        if self.mode not in (LAST, MEAN):
            raise ValueError(f"{self.source}: pooling is {self.mode!r}, expected {LAST} or {MEAN}")
        if self.modules:
            raise ValueError(
                f"{self.source}: the module {self.modules[0]}, expected Transformer, Pooling and "
                "Normalize alone"
            )

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Pooling:
        """Raises ValueError for a text that `to_json` did not write."""
        try:
            made = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"pooling: {error}") from None
        default = cls()
        for name, value in dataclasses.asdict(made).items():
            kinds = (str, type(None)) if name == "prompt" else type(getattr(default, name))
            if not isinstance(list_to_tuple(value), kinds):
                raise ValueError(f"pooling: {name} is {shown(value)}")
        return dataclasses.replace(made, modules=tuple(made.modules))


def list_to_tuple(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def read_pooling(folder: Path) -> Pooling:
    """Of a Hugging Face folder; raises ValueError, naming the file, for one that is damaged."""
    texts = read_optional(folder / "sentence_bert_config.json")
    limit = _max_tokens(folder, texts)
    modules = _modules(folder)
    if modules is None:
        return Pooling(max_tokens=limit)
    pooling: dict[str, Any] = {}
    others = []
    kinds = [kind for kind, _ in modules]
    for kind, path in modules:
        if kind == "Pooling":
            pooling = read_object(folder / path / "config.json")
        elif kind == "Transformer" and path:
            raise ValueError(
                f"{_MODULES}: the model is in {path!r}, expected it in the folder itself"
            )
        elif kind not in ("Transformer", "Normalize"):
            others.append(kind)
    if kinds.count("Pooling") != 1:
        raise ValueError(f"{_MODULES}: {kinds.count('Pooling')} modules Pooling, expected one")
    settings = read_optional(folder / "config_sentence_transformers.json")
    prompts, prompt = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(x, str) for x in prompts.values()):
        raise ValueError(f"config_sentence_transformers.json: prompts is {shown(prompts)}")
    if prompt is not None and prompt not in prompts:
        raise ValueError(
            f"config_sentence_transformers.json: default_prompt_name is {shown(prompt)}, "
            "expected a name in prompts"
        )
    return Pooling(
        mode=_mode(pooling),
        normalizes="Normalize" in kinds,
        includes_prompt=pooling.get("include_prompt", True) is not False,
        modules=tuple(others),
        prompts=prompts,
        prompt=prompt,
        lowers=texts.get("do_lower_case") is True,
        max_tokens=limit,
        source=_MODULES,
    )


def _modules(folder: Path) -> list[tuple[str, str]] | None:
    """The class and the folder of each module, in order; None without a list."""
    path = folder / _MODULES
    if not path.is_file():
        return None
    check_fetched(path)
    try:
        listed = json.loads(path.read_text("utf-8"))
        return [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in listed]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(
            f"model: {str(path)!r} is no JSON list of objects with type and path"
        ) from None


def _mode(pooling: dict[str, Any]) -> str:
    """Under its name since version 6, or as flags; all that there are."""
    mode = pooling.get("pooling_mode")
    if mode is None:
        mode = [name for key, name in _MODES.items() if pooling.get(key)] or MEAN
    return "+".join(map(str, mode)) if isinstance(mode, list) else str(mode)


def _max_tokens(folder: Path, texts: Mapping[str, Any]) -> int:
    """The least of the limits that tokenizer and model have; 0 for none."""
    found = [
        texts.get("max_seq_length"),
        read_optional(folder / "tokenizer_config.json").get("model_max_length"),
    ]
    limits = [each for each in found if type(each) is int and 0 < each < _NO_LIMIT]
    return min(limits, default=0)
