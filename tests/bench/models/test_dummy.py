"""Random models to keep: what ternops, transformers and llama.cpp read in them, and refusals."""

from __future__ import annotations

import json
import os
import warnings
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from bench.models import dummy, random_folder
from ternops.decoder import Config, Model, open_checkpoint

#: Vocabularies are multiples of the 64 rows that repeat in GGUF files.
LLAMA = Config(
    hidden=256, ffn=768, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=320, context=96,
    tied=False, rope_theta=20000.0,
)  # fmt: skip
BITNET = Config(
    hidden=256, ffn=512, layers=3, heads=4, kv_heads=1, head_dim=64, vocabulary=448, context=64,
    activation="relu2", architecture="bitnet", tied=True, rope_theta=500000.0,
)  # fmt: skip
#: As 3B: rows of 160 and heads of 20, which no block of 256 divides.
ODD = replace(LLAMA, hidden=160, ffn=300, heads=8, kv_heads=8, head_dim=20)
QWEN3 = replace(LLAMA, architecture="qwen3", head_dim=128)
LAYOUTS = {"llama": LLAMA, "bitnet": BITNET, "odd": ODD, "qwen3": QWEN3}
TEXT = "naïve  x\n\tπ <s>"
#: A token begins; bytes are 3 and more, a space is behind them.
TOKENS = [1, *(259 if byte == 32 else 3 + byte for byte in TEXT[:-3].encode()), 1]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(dummy, "SIZES", LAYOUTS)


def run(path, size, kind, *more):
    return dummy.main(["--size", size, "--format", kind, "--output", str(path), *more])


def expected_config(size, kind):
    """GGUF fixes the activation, and may round the layout up."""
    config = replace(LAYOUTS[size], eos=(2,))
    if kind == "hf":
        return config
    if size == "odd":
        config = replace(config, hidden=256, ffn=512, head_dim=32)
    return replace(config, activation="silu")


def refused(capsys, tmp_path, path, *words, arguments=("llama", "hf")):
    """One line that holds all the words, exit code 2, and nothing new in the folder."""
    before = listing(tmp_path)
    assert run(path, *arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("bench.dummy: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert listing(tmp_path) == before


def listing(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", dummy.FORMATS)
@pytest.mark.parametrize("size", LAYOUTS)
def test_ternops_loads_it(tmp_path, capsys, size, kind):
    path = tmp_path / "model"
    assert run(path, size, kind) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert out.startswith(f"{path}: {size} as {kind}, 0.00 GB of random weights")
    assert os.listdir(tmp_path) == ["model"]
    checkpoint = open_checkpoint(path)
    config = expected_config(size, kind)
    assert checkpoint.config == config
    for name, shape in config.linear_shapes().items():
        trits, scale = checkpoint.trits(config.layers - 1, name)
        assert trits.shape == shape
        assert set(np.unique(trits)) == {-1, 0, 1}
        np.testing.assert_allclose(scale, shape[1] ** -0.5, rtol=2**-7)
    tokenizer = checkpoint.tokenizer()
    tokens = tokenizer.encode(TEXT).ids
    assert tokens == TOKENS
    assert tokenizer.decode(tokens[:-1]) == TEXT.removesuffix("<s>")
    logits = Model.from_pretrained(path, threads=1).logits(tokens)
    assert logits.shape == (len(tokens), config.vocabulary)
    assert np.isfinite(logits).all()
    assert 0.2 < logits.std() < 5


#: What a folder alone can say of a trunk; scales that are exact where they come back from roots.
TRUNKS = {
    "qwen2": replace(LLAMA, architecture="qwen2", layers=4, windows=(0, 0, 33, 33)),
    "qwen3 inner": replace(QWEN3, inner_norms=True, inner_epsilon=1e-4),
    "gemma3": replace(
        QWEN3, architecture="gemma3", activation="gelu_tanh", tied=True, windows=(21, 0),
        rope_local_theta=300.0, query_scalar=200.0, embedding_scale=16.0,
    ),
    "minicpm": replace(
        LLAMA, architecture="minicpm", layers=4, embedding_scale=12.0, residual_scale=0.75,
        logit_scale=0.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRUNKS)
def test_a_folder_of_a_trunk(tmp_path, name):
    """Is read as the same numbers."""
    config = TRUNKS[name]
    random_folder.write_folder(tmp_path, config, lambda count: None)
    model = Model.from_pretrained(tmp_path, threads=1)
    assert model.config == replace(config, eos=(2,))
    logits = model.logits(TOKENS)
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 20


def test_what_differs_from_the_layout_is_said(tmp_path, capsys):
    run(tmp_path / "a", "odd", "gguf-tq1_0")
    assert "hidden is 256 for 160, to fill blocks; ffn is 512 for 300" in capsys.readouterr().out
    run(tmp_path / "b", "bitnet", "gguf-tq2_0")
    assert "llama.cpp computes SiLU for relu2" in capsys.readouterr().out
    run(tmp_path / "c", "odd", "hf")
    assert capsys.readouterr().out.endswith("of random weights\n")


@pytest.mark.parametrize("kind", dummy.FORMATS)
def test_the_size_is_what_was_said(tmp_path, monkeypatch, kind):
    """So that the disk's room is known before, and the bar ends where it should."""
    done = []

    @contextmanager
    def progress(what, nbytes):
        yield done.append
        assert sum(done) == nbytes

    monkeypatch.setattr(dummy, "_progress", progress)
    assert run(tmp_path / "model", "llama", kind) == 0
    file = tmp_path / "model" / "model.safetensors" if kind == "hf" else tmp_path / "model"
    assert sum(done) < file.stat().st_size < sum(done) + dummy._HEADERS


def test_the_default_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in dummy.FORMATS:
        assert dummy.main(["--size", "llama", "--format", kind]) == 0
    expected = {"dummy-llama-tq1_0.gguf", "dummy-llama-tq2_0.gguf", "dummy-llama-hf"}
    assert set(os.listdir(tmp_path)) == expected
    assert set(os.listdir(tmp_path / "dummy-llama-hf")) == {*random_folder.FILES}


@pytest.mark.parametrize("kind", dummy.FORMATS)
def test_existing_output(tmp_path, capsys, kind):
    """It stays as it was without --force, is replaced with it, and the same run gives the same."""
    path = tmp_path / "model"
    assert run(path, "bitnet", kind) == 0
    before = listing(tmp_path)
    capsys.readouterr()
    refused(capsys, tmp_path, path, "exists", "--force", arguments=("llama", kind))
    assert run(path, "llama", kind, "--force") == 0
    assert listing(tmp_path) != before
    assert run(path, "bitnet", kind, "--force") == 0
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "changes"),
    [("embedding-0.6B", {}), ("embedding-270M", {"windows": (5, 0), "embedding_scale": 96**0.5})],
)
def test_embedding_models(tmp_path, monkeypatch, capsys, name, changes):
    """Folders that say how to pool; llama.cpp has no such architecture."""
    config = replace(
        dummy.EMBEDDERS[name], hidden=96, ffn=160, layers=2, head_dim=24, vocabulary=300,
        context=64, **changes,
    )  # fmt: skip
    monkeypatch.setattr(dummy, "EMBEDDERS", {name: config})
    path = tmp_path / "model"
    refused(
        capsys, tmp_path, path, "--format gguf-tq2_0: expected hf", arguments=(name, "gguf-tq2_0")
    )
    for _ in range(2):
        assert run(path, name, "hf", "--force") == 0
    model = Model.from_pretrained(path, threads=1)
    assert model.config == replace(config, eos=(2,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.embed(["a", "some text"])
    assert found.shape == (2, 96)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_only_a_dummy_is_thrown_away(tmp_path, capsys):
    """--force is no way to lose a folder of other files, or one in place of a file."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    force = ("llama", "hf", "--force")
    refused(capsys, tmp_path, tmp_path / "mine", "'thesis.tex'", arguments=force)
    refused(capsys, tmp_path, tmp_path / "file", "is no folder", arguments=force)
    refused(capsys, tmp_path, tmp_path / "link", "is no folder", arguments=force)
    force = ("llama", "gguf-tq1_0", "--force")
    refused(capsys, tmp_path, tmp_path / "mine", "is no file", arguments=force)


@pytest.mark.parametrize("kind", dummy.FORMATS)
def test_nowhere_to_write(tmp_path, capsys, monkeypatch, kind):
    (tmp_path / "file").write_text("x")
    arguments = ("llama", kind)
    path = tmp_path / "missing" / "model"
    refused(capsys, tmp_path, path, f"{str(path.parent)!r} is no folder", arguments=arguments)
    path = tmp_path / "file" / "model"
    refused(capsys, tmp_path, path, f"{str(path.parent)!r} is no folder", arguments=arguments)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    # Root, as which tests may run, may write everywhere.
    monkeypatch.setattr("tempfile.mkstemp", denied)
    monkeypatch.setattr("tempfile.mkdtemp", denied)
    refused(capsys, tmp_path, tmp_path / "model", "Permission denied", arguments=arguments)


@pytest.mark.parametrize("kind", dummy.FORMATS)
def test_too_little_room(tmp_path, capsys, monkeypatch, kind):
    usage = namedtuple("Usage", "free")(3_210_000_000)
    monkeypatch.setattr(dummy.shutil, "disk_usage", lambda folder: usage)
    large = replace(LLAMA, hidden=8192, ffn=45568, layers=72, heads=64, kv_heads=64, head_dim=128)
    monkeypatch.setitem(LAYOUTS, "large", large)
    needed = {"gguf-tq1_0": "21.1 GB", "gguf-tq2_0": "25.8 GB", "hf": "25.0 GB"}[kind]
    refused(
        capsys, tmp_path, tmp_path / "model", f"needs {needed}, 3.2 GB are free",
        arguments=("large", kind),
    )  # fmt: skip


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("kind", dummy.FORMATS)
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, capsys, monkeypatch, kind, existing):
    path = tmp_path / "model"
    if existing:
        assert run(path, "bitnet", kind) == 0
        capsys.readouterr()

    @contextmanager
    def progress(what, nbytes):
        def advance(done):
            raise OSError(28, "No space left on device")

        yield advance

    monkeypatch.setattr(dummy, "_progress", progress)
    arguments = ("llama", kind, "--force")
    refused(capsys, tmp_path, path, "No space left on device", arguments=arguments)


def test_a_folder_that_cannot_be_put_in_place(tmp_path, capsys, monkeypatch):
    """The old one comes back."""
    path = tmp_path / "model"
    assert run(path, "bitnet", "hf") == 0
    capsys.readouterr()
    rename = dummy.Path.rename

    def only_away(self, target):
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(dummy.Path, "rename", only_away)
    arguments = ("llama", "hf", "--force")
    refused(capsys, tmp_path, path, "Input/output error", arguments=arguments)


def test_unknown_arguments(tmp_path, capsys):
    arguments = ("9B", "hf")
    words = ("--size '9B'", "expected one of llama, bitnet, odd")
    refused(capsys, tmp_path, tmp_path / "model", *words, arguments=arguments)
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "model", "llama", "gguf-q4_0")
    assert caught.value.code == 2
    assert "gguf-tq1_0" in capsys.readouterr().err
    too_few = replace(LLAMA, vocabulary=200)
    with pytest.raises(ValueError, match=r"^vocabulary: 200, expected at least 260 tokens$"):
        dummy.plan("few", too_few, "gguf-tq1_0").write(tmp_path / "a", print)


@pytest.mark.peers
@pytest.mark.parametrize("size", ["llama", "bitnet"])
def test_transformers_loads_it(tmp_path, size):
    """The same tokens, and logits but for the rounding of int8 activations to another side."""
    torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (make test-peers)"
    )
    pytest.importorskip("accelerate", reason="accelerate is not installed (make test-peers)")
    path = tmp_path / "model"
    assert run(path, size, "hf") == 0
    tokens = transformers.AutoTokenizer.from_pretrained(path).encode(TEXT)
    assert tokens == TOKENS
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    # It compiles its BitNet layers when they first run, with a C++ compiler that need not be there.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected = torch.nn.Module.float(theirs)(torch.tensor([tokens])).logits[0].numpy()
    logits = Model.from_pretrained(path, threads=1).logits(tokens)
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < 0.1 * expected.std()
    assert json.loads((path / "config.json").read_text())["model_type"] == size


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["gguf-tq1_0", "gguf-tq2_0"])
@pytest.mark.parametrize("size", LAYOUTS)
def test_llama_cpp_loads_it(tmp_path, size, kind):
    """The same tokens, and nearly the same logits; activations are rounded in blocks there."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    path = tmp_path / "model.gguf"
    assert run(path, size, kind) == 0
    theirs = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, verbose=False, logits_all=True)
    tokens = theirs.tokenize(TEXT.encode(), add_bos=True, special=True)
    assert tokens == TOKENS
    assert theirs.detokenize(tokens[1:-1]).decode() == TEXT.removesuffix("<s>")
    theirs.eval(tokens)
    expected = np.array(theirs.scores[: len(tokens)])
    logits = Model.from_pretrained(path, threads=1).logits(tokens)
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).mean() < 0.1 * expected.std()
