"""Models of the hub by their names: downloaded, from the cache, or one line that says why not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from ternops.__main__ import main
from ternops.decoder import Model, open_checkpoint
from ternops.decoder.formats import hub
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.hub import HubId, parse
from ternops.decoder.formats.loading import TINY
from tests.helpers import cases, gguf_files

TOKENS = [0, 32, 7, 7, 19, 2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
#: A repository of everything.
FILES = [
    ".gitattributes", "README.md", "config.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "chat_template.jinja", "tokenizer.model", "modules.json",
    "1_Pooling/config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors", "pytorch_model.bin", "onnx/model.onnx", "original/a.json",
    "figures/a.png",
]  # fmt: skip
WANTED = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
          "chat_template.jinja", "modules.json", "1_Pooling/config.json",
          "model.safetensors.index.json", "model-00001-of-00002.safetensors",
          "model-00002-of-00002.safetensors"]  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no folder of the name of an owner."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def keep(cache, source, repository="org/name", branch="main", commit=COMMIT):
    """Files in the cache as huggingface_hub lays them out: blobs, and snapshots of links to them;
    gives the snapshot."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for each in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    snapshot = folder / "snapshots" / commit
    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        blob = folder / "blobs" / f"{abs(hash(path.name)):x}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(blob)
    return snapshot


@pytest.fixture
def online(monkeypatch, cache):
    """A hub that has one repository; what was asked of it."""

    class Hub:
        files = FILES
        source: Path | None = None
        asked: list = []  # noqa: RUF012

        def list_repo_files(self, repository, revision=None):
            assert repository == "org/name"
            if isinstance(self.files, Exception):
                raise self.files
            return list(self.files)

        def snapshot_download(self, repository, revision=None, allow_patterns=None):
            self.asked.append((repository, revision, sorted(allow_patterns)))
            if self.source is None:
                return str(cache)
            return str(keep(cache, self.source))

    found = Hub()
    found.asked = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    return found


def refused(name, *words, kind=FileNotFoundError):
    """Opening it raises in one line that holds all the words."""
    with pytest.raises(kind, match=r"\Amodel: [^\n]*\Z") as caught:
        open_checkpoint(name)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", ("org/name", None, "")),
        ("org/name/", ("org/name", None, "")),
        ("org/name-GGUF:Q2_0", ("org/name-GGUF", None, "Q2_0")),
        ("org/name@main", ("org/name", "main", "")),
        ("org/name:Q2_0@refs/pr/3", ("org/name", "refs/pr/3", "Q2_0")),
        ("https://huggingface.co/org/name", ("org/name", None, "")),
        ("https://huggingface.co/org/name/tree/dev", ("org/name", "dev", "")),
        ("https://huggingface.co/org/name/resolve/main/a.gguf?download=true",
         ("org/name", "main", "a.gguf")),
        ("https://huggingface.co/org/name/blob/main/b/a.gguf", ("org/name", "main", "b/a.gguf")),
        ("hf.co/org/name:Q2_0", ("org/name", None, "Q2_0")),
        ("huggingface.co/org/name", ("org/name", None, "")),
        ("hf://models/org/name", ("org/name", None, "")),
        ("hf://org/name@main", ("org/name", "main", "")),
        ("name", None),
        ("/org/name", None),
        ("../org/name", None),
        ("a/b/c", None),
        ("https://example.org/org/name", None),
        (r"C:\org\name", None),
        ("org/name of a model", None),
    ],
)  # fmt: skip
def test_names(text, expected):
    """As people write them, here and for llama.cpp, and as a browser shows them."""
    assert parse(text) == (HubId(*expected) if expected else None)


def test_only_what_is_read(online):
    """Settings, tokenizer, templates, pooling and safetensors."""
    hub.fetch(HubId("org/name", None, ""))
    hub.fetch(HubId("org/name", "dev", ""))
    online.files = [*FILES, "model.safetensors", "name-Q2_0.gguf"]
    hub.fetch(HubId("org/name", None, ""))
    one = [each for each in WANTED if not each.startswith("model-")] + ["model.safetensors"]
    assert online.asked == [
        ("org/name", None, sorted(WANTED)), ("org/name", "dev", sorted(WANTED)),
        ("org/name", None, sorted(one)),
    ]  # fmt: skip
    online.asked.clear()
    hub.fetch(HubId("org/name", None, ""), only_settings=True)
    settings = ["config.json", "generation_config.json", "tokenizer_config.json"]
    assert online.asked == [("org/name", None, settings)]


def test_one_of_several_gguf_files(online, cache):
    """By a part of its name, whatever else there is; all parts of one that was split."""
    parts = [f"b/name-Q8_0-0000{at}-of-00003.gguf" for at in (1, 2, 3)]
    online.files = [*FILES, "name-Q2_0.gguf", "name-Q2_0_g64.gguf", "name-F16[1].gguf", *parts]
    assert hub.fetch(HubId("org/name", None, "q8_0")) == cache / parts[0]
    assert hub.fetch(HubId("org/name", None, "name-Q2_0.gguf")) == cache / "name-Q2_0.gguf"
    assert hub.fetch(HubId("org/name", None, "g64")) == cache / "name-Q2_0_g64.gguf"
    assert hub.fetch(HubId("org/name", None, "f16")) == cache / "name-F16[1].gguf"
    assert [each[2] for each in online.asked] == [
        parts, ["name-Q2_0.gguf"], ["name-Q2_0_g64.gguf"], ["name-F16[[]1].gguf"]
    ]  # fmt: skip
    refused("org/name:Q2_0", "name-Q2_0.gguf, name-Q2_0_g64.gguf", "expected one 'Q2_0': org/name:",
            kind=ValueError)  # fmt: skip
    refused("org/name:Q4", "expected one 'Q4'", kind=ValueError)
    online.files = ["config.json", "README.md", "name-Q2_0.gguf", "name-F16.gguf"]
    refused("org/name", "holds name-Q2_0.gguf, name-F16.gguf, expected one: org", kind=ValueError)
    online.files = ["config.json", "README.md", "name-Q2_0.gguf"]
    assert hub.fetch(HubId("org/name", None, "")) == cache / "name-Q2_0.gguf"


def test_what_is_no_model(online):
    """Nothing is downloaded."""
    online.files = ["config.json", "pytorch_model.bin"]
    refused("org/name", "no model.safetensors and no GGUF file, but pickles", kind=ValueError)
    online.files = ["README.md"]
    refused("org/name", "holds no model.safetensors and no GGUF file", kind=ValueError)
    assert online.asked == []


def test_a_download(online, tmp_path, capfd):
    """Every command and from_pretrained take the name."""
    online.files = [each.name for each in TINY.iterdir()]
    online.source = TINY
    expected = Model.from_pretrained(TINY, threads=1).logits(TOKENS)
    model = Model.from_pretrained("org/name", threads=1)
    assert cases.same_bits(model.logits(TOKENS), expected)
    online.source = None
    packed, text = tmp_path / "packed", tmp_path / "text"
    text.write_text("x = 1")
    generate = ["generate", "--prompt", "def", "--max-new-tokens", "2", "--model"]
    for arguments in (
        [*generate, "org/name"],
        ["quantize", "org/name", str(packed)],
        ["perplexity", "--text", str(text), "--model", "https://huggingface.co/org/name"],
        ["predict", "--hardware", "m2-ultra", "--model", "org/name"],
    ):
        online.files = errors.OfflineModeIsEnabled("offline")
        assert main(arguments) == 0, arguments
    assert capfd.readouterr().out
    assert cases.same_bits(Model.from_pretrained(packed, threads=1).logits(TOKENS), expected)


def test_the_cache_alone(cache, tmp_path):
    """HF_HUB_OFFLINE, which tests set: the snapshot that a branch, or a commit, names."""
    keep(cache, TINY)
    path = gguf_files.write_gguf(
        tmp_path / "a-Q2_0.gguf", gguf_files.random_values(gguf_files.LLAMA), kind="Q2_0"
    )
    keep(cache, path, "org/other", "dev", "f" * 40)
    for name in ("org/name", "org/name@main", f"org/name@{COMMIT}"):
        assert open_checkpoint(name).config == open_checkpoint(TINY).config
    for name in ("org/other@dev", "org/other:Q2_0@dev", f"org/other@{'f' * 40}"):
        assert isinstance(open_checkpoint(name), Gguf)
    for name in ("org/other", "org/name@dev", "org/name@..", "org/none", "org/name@../../x"):
        refused(name, "is no file or folder, not in the hub's cache", "cannot be reached: ")


def test_a_folder_comes_first(cache, tmp_path):
    """And one whose first part is there was meant as a path."""
    shutil.copytree(TINY, Path("org/name"))
    assert open_checkpoint("org/name").config.vocabulary > 1
    refused("org/nane", "'org/nane' is no file or folder")


def response_error(kind):
    """One of the package's own errors of an answer."""
    found = kind.__new__(kind)
    Exception.__init__(found, "404 Client Error.\n\nRepository Not Found")
    return found


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (response_error(errors.RepositoryNotFoundError), "no model of the hub that one may read"),
        (response_error(errors.RevisionNotFoundError), "no model of the hub that one may read"),
        (response_error(errors.GatedRepoError), "accepted its terms on the hub and logged in"),
        (ConnectionError("Name or service not known"), "cannot be reached: Name or service not"),
        (errors.OfflineModeIsEnabled("set HF_HUB_OFFLINE=0"), "reached: set HF_HUB_OFFLINE=0"),
        (RuntimeError(""), "cannot be reached: RuntimeError"),
    ],
)
def test_what_cannot_be_had(online, error, words):
    """One line; what is in the cache is used if the hub cannot be reached."""
    online.files = error
    refused("org/name", words)
    assert main(["generate", "--model", "org/name", "--prompt", "x"]) == 2


def test_without_the_package(cache, monkeypatch, capfd):
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"^huggingface_hub, which downloads org/name, is"
    ):
        open_checkpoint("org/name")
    assert main(["generate", "--model", "org/name", "--prompt", "x"]) == 2
    assert "pip install 'ternops[llm]'" in capfd.readouterr().err


def test_a_prediction_of_settings(online, tmp_path, capfd):
    """Without the weights."""
    folder = tmp_path / "settings"
    folder.mkdir()
    shutil.copy(TINY / "config.json", folder)
    online.source = folder
    assert main(["predict", "--hardware", "m2-ultra", "--model", "org/name"]) == 0
    assert [each[2] for each in online.asked] == [
        ["config.json", "generation_config.json", "tokenizer_config.json"]
    ]
    online.files = errors.OfflineModeIsEnabled("offline")
    assert main(["predict", "--hardware", "m2-ultra", "--model", "org/none"]) == 2
