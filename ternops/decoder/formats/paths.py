"""From what people pass as a model to the file or the folder that it is in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ternops.decoder.formats import hub
from ternops.decoder.formats.hub import WEIGHTS
from ternops.spelling import nearest

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\|[^/]*\\")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
#: A zip archive, as torch.save writes it now, and pickles of protocols 2 to 5.
_PICKLE_STARTS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
#: What else lies in the folder of a Hugging Face model, and is no model.
_BESIDE = (".jinja", ".md", ".model", ".py", ".txt")
_PICKLE = (
    "a pickle, which is never read: convert it to safetensors, with torch and transformers: python "
    "-c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('DIR', "
    "dtype='auto').save_pretrained('DIR')\""
)
#: Where `hf download` leaves what it has not finished.
_UNFINISHED = ("*.incomplete", ".cache/huggingface/download/*.incomplete")
_MAX_NAMES = 5
_ELSE = "; expected one, or OWNER/NAME to download"
_ALIKE = 0.75  # of names, as difflib has it: a letter or two are wrong


def locate(path: str | os.PathLike[str], only_settings: bool = False) -> Path:
    """An existing file or folder: `~` is the home, the folder of a repository in the hub's cache
    its snapshot. What is not there and is the name of a model of the hub is downloaded.

    only_settings: of that, leave out weights and tokenizer.
    Raises FileNotFoundError for what is not there, with a word about what it might be, ValueError
    for a cache that does not say which snapshot, and what `hub.fetch` raises.
    """
    where = Path(path)
    if path == "":  # Path("") would be the current folder
        raise FileNotFoundError(f"model: '' is no file or folder{_ELSE}")
    if not where.exists():
        where = _expanded(where)
    if not where.exists():
        if model := _on_hub(path, where):
            return hub.fetch(model, only_settings)
        more = hint(path) or _ELSE
        raise FileNotFoundError(f"model: {str(path)!r} is no file or folder{more}")
    if (where / "config.json").is_file():
        return where
    if (where / "snapshots").is_dir():
        return _snapshot(where)
    if where.is_dir() and (models := _names(where, "models--*")):
        raise ValueError(
            f"model: {str(where)!r} is the hub's cache, expected the folder of a model in it: "
            f"{models}"
        )
    return where


def _on_hub(path: str | os.PathLike[str], where: Path) -> hub.HubId | None:
    """What it names of the hub; a path whose first folder exists was meant as one."""
    text = os.fspath(path)
    if "://" not in text and where.parent.exists():
        return None
    return hub.parse(text)


def hint(path: str | os.PathLike[str]) -> str:
    """What a path that does not exist, and is nothing of the hub, may be; "" if unknown."""
    text, where = os.fspath(path), _expanded(Path(path))
    if "://" in text:
        return ": an address, download it first"
    if os.name != "nt" and _WINDOWS.match(text):
        return ": a path of Windows, expected one of this system"
    return _alike(where)


def no_model(path: Path) -> str:
    """What to pass or do instead of a file that is no model by itself; "" if unknown."""
    with open(path, "rb") as file:
        if file.read(2) in _PICKLE_STARTS:
            return f"model: {str(path)!r} is {_PICKLE}"
    beside = (path.parent / "config.json").is_file()
    part = WEIGHTS.fullmatch(path.name) or path.suffix in _BESIDE
    if path.suffix == ".json" or (beside and part):
        return (
            f"model: {str(path)!r} is one file of a Hugging Face model (config.json and "
            f"safetensors), expected its folder, {str(path.parent)!r}"
        )
    return ""


def missing_weights(folder: Path) -> str:
    """Why there is no model.safetensors in a folder, as far as its other files show."""
    weights = folder / "model.safetensors"
    if weights.is_symlink():
        return f": it is a link to {os.readlink(weights)!r}, where nothing is"
    return _found(
        folder,
        ("model-*-of-*.safetensors", "but no model.safetensors.index.json"),
        ("*.safetensors", "expected that name, or the path of what quantize wrote"),
        *((f"*{suffix}", _PICKLE) for suffix in _PICKLES),
        *((place, "an unfinished download: hf download goes on") for place in _UNFINISHED),
    )


def missing_config(folder: Path) -> str:
    """The same of a config.json."""
    return _found(
        folder,
        ("*/config.json", "expected the path of that folder"),
        ("*/*.[gG][gG][uU][fF]", "expected the path of that file"),
        ("*.safetensors", "expected the path of what quantize wrote"),
        *((f"*{suffix}", _PICKLE) for suffix in _PICKLES),
        *((place, "an unfinished download: hf download goes on") for place in _UNFINISHED),
    )


def _found(folder: Path, *reasons: tuple[str, str]) -> str:
    """The first reason whose pattern names match, and those; "" for none."""
    for pattern, reason in reasons:
        if names := _names(folder, pattern):
            return f": there is {names}, {reason}"
    return ""


def _names(folder: Path, pattern: str) -> str:
    """The first names in a folder that match."""
    names = sorted(each.relative_to(folder).as_posix() for each in folder.glob(pattern))
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # nobody's home
        return path


def _alike(where: Path) -> str:
    """The name beside the first one that is missing which is most like it."""
    missing = where
    while not missing.parent.exists():
        missing = missing.parent
    try:
        found = nearest(missing.name, os.listdir(missing.parent), _ALIKE)
    except OSError:
        return ""
    return f": there is {str(missing.parent / found)!r}" if found else ""


def _snapshot(repository: Path) -> Path:
    """The one snapshot of a repository in the hub's cache, or that of its main branch."""
    names = sorted(each.name for each in (repository / "snapshots").iterdir() if each.is_dir())
    main = repository / "refs" / "main"
    revision = main.read_text("utf-8", "replace").strip() if main.is_file() else None
    if revision in names:
        return repository / "snapshots" / revision
    if len(names) == 1:
        return repository / "snapshots" / names[0]
    found = ", ".join(names) or "none"
    raise ValueError(
        f"model: {str(repository)!r} has the snapshots {found}, expected the path of one, or one "
        "that refs/main names"
    )
