"""Small folders of embedding models: random weights, a tokenizer of bytes that adds an EOS, and the
files of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.models import byte_tokenizer, random_folder
from tests.helpers.small_models import small_config

#: Of its versions up to 5, and since 6.
_OLD = "sentence_transformers.models"
TYPES = {
    5: {"Transformer": _OLD, "Pooling": _OLD, "Normalize": _OLD, "Dense": _OLD},
    6: {
        "Transformer": "sentence_transformers.base.modules.transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling",
        "Normalize": "sentence_transformers.base.modules.normalize",
        "Dense": "sentence_transformers.base.modules.dense",
    },
}  # fmt: skip
_FLAGS = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "lasttoken": "lasttoken",
          "weightedmean": "weightedmean_tokens"}  # fmt: skip


def folder(path: Path, layout: str = "qwen3 inner", vocabulary: int = 300) -> Path:
    """A model without files about pooling; a text has a token a byte, and `</s>`."""
    path.mkdir(exist_ok=True)
    config = small_config("hidden 100", layout, vocabulary=vocabulary, context=90)
    random_folder.write_folder(path, config, lambda count: None)
    raw = json.loads((path / "tokenizer.json").read_text())
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "</s>": {"id": "</s>", "ids": [byte_tokenizer.END], "tokens": ["</s>"]},
        },
    }  # fmt: skip
    (path / "tokenizer.json").write_text(json.dumps(raw))
    return path


def write_modules(
    path: Path,
    mode: Any = "lasttoken",
    kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    version: int = 5,
    **pooling: Any,
) -> Path:
    """modules.json and the folder of each module; the same path."""
    modules = [
        {"idx": at, "name": str(at), "path": f"{at}_{kind}" if at else "",
         "type": f"{TYPES[version][kind]}.{kind}"}
        for at, kind in enumerate(kinds)
    ]  # fmt: skip
    (path / "modules.json").write_text(json.dumps(modules))
    if version == 5:
        modes = mode if isinstance(mode, list) else [mode]
        flags = {f"pooling_mode_{flag}": name in modes for name, flag in _FLAGS.items()}
        settings: dict[str, Any] = {"word_embedding_dimension": 100, **flags}
    else:
        settings = {"embedding_dimension": 100, "pooling_mode": mode}
    for module in modules:
        if module["path"]:
            (path / str(module["path"])).mkdir(exist_ok=True)
            content = settings | pooling if "Pooling" in str(module["type"]) else {}
            (path / str(module["path"]) / "config.json").write_text(json.dumps(content))
    return path


def write_settings(path: Path, name: str, **settings: Any) -> Path:
    """Add to the settings of one of a folder's JSON files; the same path."""
    file = path / name
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(found | settings))
    return path
