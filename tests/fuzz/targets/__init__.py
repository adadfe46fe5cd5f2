"""What is attacked: a module each, imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

_FORMATS = ("ternops.decoder.formats", "ternops.files")
#: name -> its module.
MODULES = {
    "gguf": "models",
    "safetensors": "models",
    "config": "models",
    "packed": "models",
    "delta": "models",
    "stack": "models",
    "session": "models",
    "matrix": "matrices",
    "tuning": "matrices",
    "hardware": "matrices",
    "tokenizer": "texts",
    "template": "texts",
    "prompt": "texts",
    "request": "server",
    "arguments": "commands",
}
#: Modules whose branches guide atheris: none with kernels, whose bytes Numba reads.
GUIDES = {
    **dict.fromkeys(("gguf", "safetensors", "config", "packed", "delta", "stack"), _FORMATS),
    "session": (*_FORMATS, "ternops.decoder.session_file"),
    "matrix": ("ternops.matrix_file", "ternops.stacks.matrix_file"),
    "tuning": ("ternops.kernels.tuned",),
    "hardware": ("ternops.cost.profile", "ternops.cost.hardware"),
    "tokenizer": ("ternops.decoder.formats", "ternops.decoder.text"),
    "template": ("jinja2", "ternops.decoder.chat"),
    "prompt": ("ternops.decoder.text", "ternops.decoder.literal"),
    "request": ("ternops.serve",),
    "arguments": ("ternops.commands",),
}


def load(name: str) -> Any:
    """A target by its name; KeyError for none."""
    module = importlib.import_module(f"tests.fuzz.targets.{MODULES[name]}")
    return module.TARGETS[name]
