"""Downloading a model of the Hugging Face hub: only the files that are read, into its cache.

All of it is huggingface_hub's: the cache, its place and its settings (HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE, HF_ENDPOINT), tokens, progress, going on with what was interrupted.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import NamedTuple

from ternops.decoder.formats.gguf_container import is_later_part, parts_of

#: With what llama.cpp and others append to it: a type or a file, a revision.
_ID = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/?"
    r"(?::(?P<file>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII,
)  # fmt: skip
_ADDRESS = re.compile(
    r"(?:hf://(?:models/)?|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)"
    r"(?P<repository>[^/]+/[^/?#:@]+)/?"
    r"(?:(?:resolve|blob|tree)/(?P<branch>[^/?#]+)(?:/(?P<path>[^?#]+))?|:(?P<file>[\w.-]+))?"
    r"(?:@(?P<revision>[\w./-]+))?(?:[?#].*)?"
)
#: The names that `transformers` gives the files of weights of a folder.
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
#: What is read beside the weights: settings, the tokenizer, chat templates, pooling.
_BESIDE = re.compile(r"[^/]+\.(json|jinja)|\d+_Pooling/config\.json")
_SETTINGS = re.compile(r"(config|generation_config|tokenizer_config)\.json")
_MAX_NAMES = 5


class HubId(NamedTuple):
    """file: a part of the name of one of several GGUF files; "" for any."""

    repository: str
    revision: str | None
    file: str


def parse(text: str) -> HubId | None:
    """Of what people write for a model of the hub; None for anything else."""
    if match := _ADDRESS.fullmatch(text):
        path = (match["path"] or match["file"] or "").rstrip("/")
        return HubId(match["repository"], match["revision"] or match["branch"], path)
    if match := _ID.fullmatch(text):
        return HubId(match["repository"], match["revision"], match["file"] or "")
    return None


def fetch(model: HubId, only_settings: bool = False) -> Path:
    """The folder of a model in the hub's cache, or the GGUF file in it, downloaded if need be.

    only_settings: leave out weights and tokenizer.
    Raises ModuleNotFoundError without the package, FileNotFoundError for what is not there or
    cannot be reached, ValueError for a repository that holds no model, or several.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"huggingface_hub, which downloads {model.repository}, is not installed: "
            "pip install 'ternops[llm]'"
        ) from None
    name = model.repository if model.revision is None else f"{model.repository}@{model.revision}"
    try:
        listed = huggingface_hub.HfApi().list_repo_files(model.repository, revision=model.revision)
        files = [each for each in listed if _SETTINGS.fullmatch(each)] if only_settings else (
            _chosen(model, listed)
        )  # fmt: skip
        folder = huggingface_hub.snapshot_download(
            model.repository, revision=model.revision, allow_patterns=list(map(glob.escape, files))
        )
    except errors.GatedRepoError:
        raise FileNotFoundError(
            f"model: {name} is for those who accepted its terms on the hub and logged in: "
            "hf auth login"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise FileNotFoundError(
            f"model: {name} is no file or folder, and no model of the hub that one may read"
        ) from None
    except NotAModelError:
        raise
    except Exception as error:  # it raises what its transport does, and that has changed
        return _cached(Path(constants.HF_HUB_CACHE), model, name, error)
    return _model_in(Path(folder), files)


class NotAModelError(ValueError):
    """A repository that holds no model that is read here, or several."""


def _cached(cache: Path, model: HubId, name: str, error: Exception) -> Path:
    """What is in the cache of a model when the hub cannot be reached."""
    repository = cache / f"models--{model.repository.replace('/', '--')}"
    revision = model.revision or "main"
    reference = repository / "refs" / revision
    commit = reference.read_text("utf-8", "replace").strip() if reference.is_file() else revision
    folder = repository / "snapshots" / commit
    if folder in repository.glob("snapshots/*"):
        present = [each.relative_to(folder).as_posix() for each in folder.rglob("*")]
        return _model_in(folder, _chosen(model, present))
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise FileNotFoundError(
        f"model: {name} is no file or folder, not in the hub's cache {str(cache)!r}, and the hub "
        f"cannot be reached: {reason[0]}; from where it can: hf download {model.repository} "
        "--local-dir FOLDER"
    ) from None


def _model_in(folder: Path, files: list[str]) -> Path:
    """The folder, or the GGUF file, or its first part, among the files."""
    models = [each for each in files if each.lower().endswith(".gguf")]
    return folder / models[0] if models else folder


def _chosen(model: HubId, files: list[str]) -> list[str]:
    """The files of a repository that are read."""
    beside = [each for each in files if _BESIDE.fullmatch(each)]
    weights = [each for each in files if WEIGHTS.fullmatch(each)]
    if weights and not model.file:
        return beside + (["model.safetensors"] if "model.safetensors" in weights else weights)
    found = [each for each in files
             if each.lower().endswith(".gguf") and not is_later_part(Path(each))]  # fmt: skip
    wanted = [each for each in found if model.file.casefold() in each.casefold()]
    if len(exact := [each for each in wanted if each == model.file]) == 1:
        wanted = exact
    if len(wanted) == 1:
        # A GGUF file has everything in it; the rest of its folder may be another model's.
        return [each for each in parts_of(wanted[0]) if each in files]
    names = ", ".join(found[:_MAX_NAMES]) + (", ..." if len(found) > _MAX_NAMES else "")
    if found:
        what = f" {model.file!r}" if model.file else ""
        raise NotAModelError(
            f"model: {model.repository} holds {names}, expected one{what}: "
            f"{model.repository}:PART-OF-ITS-NAME"
        )
    raise NotAModelError(
        f"model: {model.repository} holds no model.safetensors and no GGUF file"
        + (", but pickles, which are never read: convert them to safetensors"
           if any(each.endswith((".bin", ".pt", ".pth")) for each in files) else "")
    )  # fmt: skip
