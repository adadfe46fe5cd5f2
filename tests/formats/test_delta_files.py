"""A delta's file: what the command writes is what a model is served with; others are refused."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import safetensors.numpy

from ternops.__main__ import main
from ternops.bitdelta import delta
from ternops.decoder import Batch, Model, open_checkpoint, reference
from ternops.decoder.distill import distill, make_delta
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.delta_file import read_delta, write_delta
from ternops.decoder.formats.loading import TINY
from ternops.matrix import TernaryMatrix
from ternops.packed import Packed
from tests.helpers import cases, checkpoints, internals

LLAMA = {
    **{k: v for k, v in checkpoints.CONFIG.items() if k != "quantization_config"},
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
}
#: A vocabulary for the tokenizer of the package.
WIDE = {**LLAMA, "vocab_size": 1024}
TOKENS = [1, 5, 9, 30, 2, 17]


def floats(seed=None, kind=np.float16):
    """Tensors of LLAMA; with a seed a fine-tune, whose linear layers differ a little."""
    values = {
        name: (each / 5 if "_proj" in name else each).astype(kind)
        for name, each in checkpoints.tensors(np.float32).items()
        if "sub_norm" not in name
    }
    if seed is not None:
        random = np.random.default_rng(seed)
        for name in [name for name in values if "_proj" in name]:
            change = random.normal(0.02, 0.005, values[name].shape)
            change *= random.choice([-1, 1], change.shape)
            values[name] = (values[name] + change).astype(kind)
    return values


def write_wide(folder, values):
    """A model with the vocabulary of the package's tokenizer, and with that."""
    random = np.random.default_rng(3)
    for table in ("model.embed_tokens.weight", "lm_head.weight"):
        values[table] = random.normal(0, 0.5, (1024, 24)).astype(np.float16)
    checkpoints.write(folder, WIDE, values)
    shutil.copy(TINY / "tokenizer.json", folder)


@pytest.fixture
def folders(tmp_path):
    """A base and two fine-tunes of it, as transformers writes them."""
    names = {"base": None, "one": 1, "two": 2}
    return {name: checkpoints.write(tmp_path / name, LLAMA, floats(seed))
            for name, seed in names.items()}  # fmt: skip


@pytest.fixture
def written(folders, tmp_path, capsys):
    """The files of both deltas."""
    found = {}
    for name in ("one", "two"):
        found[name] = tmp_path / f"{name}.safetensors"
        assert command(folders["base"], folders[name], found[name]) == 0
        assert re.fullmatch(r".*: \d\.\d+ bits a weight, [\d,]+ bytes\n", capsys.readouterr().out)
    return found


def command(*arguments):
    """The exit code."""
    return main(["delta", *map(str, arguments)])


def lines_of(capsys):
    """What is said on stderr, but for progress."""
    lines = capsys.readouterr().err.splitlines()
    return [each for each in lines if not re.match(r"(comparing|loading): \d+%", each)]


def test_a_base_serves_its_fine_tunes(folders, written):
    """Alone and in a batch; logits are the oracle's, and closer to the fine-tune's than the
    base's are."""
    model = Model.from_pretrained(folders["base"], weights="half", deltas=written, threads=2)
    assert model.encoding == "fp16"
    base = reference.logits(model, TOKENS)
    batch, expected = Batch(model, 3), {}
    for name in ("one", "two", None):
        wanted = reference.logits(model, TOKENS, delta=name)
        assert cases.same_bits(model.logits(TOKENS, name), wanted)
        expected[batch.add(TOKENS, 5, delta=name)] = list(model.generate(TOKENS, 5, delta=name))
        if name:
            tuned = Model.from_pretrained(folders[name], weights="half").logits(TOKENS)
            assert np.square(wanted - tuned).mean() < 0.4 * np.square(base - tuned).mean()
    found = {}
    while len(batch):
        for request, token, *_ in batch.step():
            found.setdefault(request, []).extend([] if token is None else [token])
    assert found == expected


def test_what_is_written(folders, written):
    """A byte for eight weights of the linear layers, a scale each, and a little header."""
    tensors = safetensors.numpy.load_file(written["one"])
    config = open_checkpoint(folders["base"]).config
    found = read_delta(written["one"], config)
    base, tuned = (open_checkpoint(folders[name]) for name in ("base", "one"))
    for layer in range(config.layers):
        for name, (rows, columns) in config.linear_shapes(layer).items():
            wanted = delta(base.half(layer, name), tuned.half(layer, name).to_dense())
            matrix = found.layers[layer][name]
            assert (matrix.to_trits() == wanted.signs.to_trits()).all()
            assert matrix.scale == wanted.alpha == tensors[f"layers.{layer}.{name}.alpha"][0]
            assert len(tensors[f"layers.{layer}.{name}.signs"]) == rows * -(-columns // 8)


def content(path):
    """Metadata and tensors of a file, whose order safetensors leaves open."""
    with safetensors.safe_open(path, framework="numpy") as file:
        names = sorted(file.keys())
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in names}


def test_every_way_to_hold_a_ternary_base(tmp_path):
    """A delta between two packed models counts for each encoding of the base, and for fp16."""
    for name, scale in (("base", 0.5), ("tuned", 0.625)):
        values, _ = checkpoints.quantized(np.random.default_rng(len(name)), scale)
        checkpoints.write(tmp_path / name, checkpoints.quantization("offline"), values)
        convert(tmp_path / name, tmp_path / f"{name}.packed")
    files = [tmp_path / "one", tmp_path / "other"]
    assert command(tmp_path / "base", tmp_path / "tuned", files[0]) == 0
    assert command(tmp_path / "base.packed", tmp_path / "tuned.packed", files[1]) == 0
    one, other = map(content, files)
    assert one == other
    for kind in ("two_bit", "base3", "tl2", "fp16"):
        model = Model.from_pretrained(
            tmp_path / "base.packed", weights=kind, deltas={"it": files[0]}, threads=2
        )
        wanted = reference.logits(model, TOKENS, delta="it")
        assert cases.same_bits(model.logits(TOKENS, "it"), wanted)


def test_bfloat16_is_held_as_it_is(tmp_path):
    """Base and fine-tune, each in its own dtype."""
    base = checkpoints.write(tmp_path / "base", LLAMA)
    checkpoints.write_bf16(base / "model.safetensors", floats(kind=np.float32))
    tuned = checkpoints.write(tmp_path / "tuned", LLAMA, floats(1))
    assert command(base, tuned, tmp_path / "file") == 0
    model = Model.from_pretrained(base, weights="half", deltas={"it": tmp_path / "file"})
    assert model.encoding == "bf16"
    wanted = reference.logits(model, TOKENS, delta="it")
    assert cases.same_bits(model.logits(TOKENS, "it"), wanted)


def test_what_is_left_is_said(folders, tmp_path, capsys):
    """Norms, embedding and head are the base's."""
    values = floats(1)
    for name in ("model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"):
        values[name] = (values[name] * 1.5).astype(np.float16)
    other = checkpoints.write(tmp_path / "other", LLAMA, values)
    assert command(folders["base"], other, tmp_path / "file") == 0
    (line,) = lines_of(capsys)
    assert line == ("ternops: embedding, head, norms: left as the base has them, though they "
                    "differ")  # fmt: skip


def test_scales_are_distilled(tmp_path, capsys):
    """On given activations logits come closer to the fine-tune's, and signs stay."""
    for name, seed in (("base", None), ("tuned", 1)):
        write_wide(tmp_path / name, floats(seed))
    text = tmp_path / "text"
    text.write_text("def main(arguments):\n    return 0\n")
    assert command(tmp_path / "base", tmp_path / "tuned", tmp_path / "plain") == 0
    capsys.readouterr()
    arguments = (tmp_path / "base", tmp_path / "tuned", tmp_path / "fit", "--distill", text)
    assert command(*arguments) == 0
    (line,) = lines_of(capsys)
    match = re.fullmatch(r"ternops: mean .* logits: (\S+), distilled (\S+)", line)
    assert float(match[2]) < float(match[1])
    deltas = {name: tmp_path / name for name in ("plain", "fit")}
    model = Model.from_pretrained(tmp_path / "base", weights="half", deltas=deltas)
    for one, other in zip(*(each.layers for each in model.deltas.of.values()), strict=True):
        for name in one:
            assert (one[name].to_trits() == other[name].to_trits()).all()
    tuned = Model.from_pretrained(tmp_path / "tuned", weights="half").logits(TOKENS)
    found, errors = distill(model, "plain", TOKENS, tuned)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    again = Model(model.weights, deltas={"it": found})
    assert cases.same_bits(again.logits(TOKENS, "it"), model.logits(TOKENS, "plain"))
    assert cases.same_bits(reference.logits(again, TOKENS, delta="it"), again.logits(TOKENS, "it"))
    with pytest.raises(ValueError, match=r"^target: shape \(5, 1024\), expected finite logits"):
        distill(model, "plain", TOKENS, tuned[1:])
    with pytest.raises(ValueError, match=r"^target: .* finite"):
        distill(model, "plain", TOKENS, tuned * np.nan)


def test_commands_take_a_delta(tmp_path, capsys):
    """`generate` continues a text as the library does with it, and `perplexity` judges it."""
    for name, seed in (("base", None), ("tuned", 1)):
        write_wide(tmp_path / name, floats(seed))
    assert command(tmp_path / "base", tmp_path / "tuned", tmp_path / "file") == 0
    text = tmp_path / "text"
    text.write_text("def main(arguments):\n    return 0\n")
    capsys.readouterr()
    model = ["--model", str(tmp_path / "base"), "--weights", "half", "--threads", "1"]
    found = {}
    for more in ([], ["--delta", str(tmp_path / "file")]):
        assert main(["generate", "--prompt", "def", "--max-new-tokens", "8", *model, *more]) == 0
        found[bool(more)] = [capsys.readouterr().out]
        assert main(["perplexity", "--text", str(text), *model, *more]) == 0
        found[bool(more)] += capsys.readouterr().out.splitlines()[:1]
    assert found[True] != found[False]
    tokenizer = open_checkpoint(tmp_path / "base").tokenizer()
    served = Model.from_pretrained(
        tmp_path / "base", weights="half", deltas={"it": tmp_path / "file"}, threads=1
    )
    tokens = list(served.generate(tokenizer.encode("def").ids, 8, delta="it"))
    assert found[True][0].rstrip("\n") == ("def" + tokenizer.decode(tokens)).rstrip("\n")


def refused(capsys, words, *arguments):
    """The command fails with one line that holds the words."""
    assert command(*arguments) == 2
    (line,) = lines_of(capsys)
    for word in words.split():
        assert word in line, line


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        (
            {"architectures": ["Qwen2ForCausalLM"]},
            None,
            "tuned: architecture 'qwen2' expected 'llama'",
        ),
        ({"num_hidden_layers": 1}, None, "tuned: layers 1, expected the base's 2"),
        ({"vocab_size": 34}, None, "tuned: vocabulary 34, expected the base's 33"),
        ({"intermediate_size": 71}, None, "tuned: gate in layer 0 has shape (71, 24), (70, 24)"),
        ({}, np.nan, "q_proj.weight holds NaN or infinity"),
        ({}, np.inf, "q_proj.weight holds NaN or infinity"),
    ],
)
def test_a_fine_tune_of_something_else_is_refused(folders, tmp_path, capsys, config, change, words):
    """Another architecture, other shapes, weights that are no numbers; nothing is written."""
    values = floats(1)
    if "Qwen2" in str(config):
        for layer in range(2):
            for name, size in (("q", 30), ("k", 10), ("v", 10)):
                key = f"model.layers.{layer}.self_attn.{name}_proj.bias"
                values[key] = np.zeros(size, np.float16)
    for name in list(values):
        if "layers.1" in name and config.get("num_hidden_layers") == 1:
            del values[name]
        elif "embed" in name or "lm_head" in name:
            values[name] = np.resize(values[name], (config.get("vocab_size", 33), 24))
        elif "gate" in name or "up_" in name:
            values[name] = np.resize(values[name], (config.get("intermediate_size", 70), 24))
        elif "down" in name:
            values[name] = np.resize(values[name], (24, config.get("intermediate_size", 70)))
    if change:
        values[checkpoints.FIRST][3, 4] = change
    other = checkpoints.write(tmp_path / "other", {**LLAMA, **config}, values)
    refused(capsys, words, folders["base"], other, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def changed(path, change):
    """The file with its tensors and metadata as `change` leaves them."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    change(tensors, metadata)
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


def swap(name, value):
    def change(tensors, metadata):
        tensors[name] = value(tensors[name])

    return change


def say(key, value):
    def change(tensors, metadata):
        metadata[key] = value

    return change


SIGNS, ALPHA = "layers.1.up.signs", "layers.1.up.alpha"
HOSTILE = {
    "format": (say("format", "ternops model"), "format 'ternops model' expected 'ternops delta'"),
    "version": (say("version", "2"), "version '2', expected version '1'"),
    "architecture": (say("architecture", "qwen3"), "architecture 'qwen3', expected 'llama'"),
    "base": (say("base", "00000000"), "its checksum does not match"),
    "no base": (lambda _, metadata: metadata.pop("base"), "base is missing"),
    "no checksum": (lambda _, metadata: metadata.pop("crc32"), "crc32 is missing"),
    "a bit": (swap(SIGNS, lambda each: each ^ 1), "its checksum does not match"),
    "shorter": (swap(SIGNS, lambda each: each[1:]), f"{SIGNS} U8 expected"),
    "wider": (swap(SIGNS, lambda each: each.astype(np.int16)), f"{SIGNS} is I16"),
    "shape": (swap(SIGNS, lambda each: each[None]), f"{SIGNS} U8 (1, 210), expected (210,)"),
    "alpha": (swap(ALPHA, lambda each: each.astype(np.float64)), f"{ALPHA} is F64"),
    "scalar": (swap(ALPHA, lambda each: each.reshape(())), f"{ALPHA} is F32 ()"),
    "gone": (lambda tensors, _: tensors.pop(SIGNS), f"tensor {SIGNS} is missing"),
    "more": (lambda tensors, _: tensors.update(z=np.zeros(1)), "tensor 'z' has no place"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_changed_file_is_refused(folders, written, case):
    """In one line that names the file and what is wrong."""
    change, words = HOSTILE[case]
    changed(written["one"], change)
    with pytest.raises(ValueError, match=r"^delta: '.*one.safetensors': [^\n]*$") as caught:
        Model.from_pretrained(folders["base"], weights="half", deltas={"it": written["one"]})
    for word in words.split():
        assert word in str(caught.value), str(caught.value)


def test_scales_that_are_no_numbers_are_refused(folders, written):
    """Though the checksum is right."""
    checkpoint = open_checkpoint(folders["base"])
    found, _ = make_delta(checkpoint, open_checkpoint(folders["one"]))
    p = internals.packed(found.layers[0]["q"])
    for value in (np.nan, np.inf):
        scale = np.array(value, np.float32)
        wrong = TernaryMatrix(Packed(p.bytes, p.rows, p.columns, scale, p.encoding))
        found.layers[0]["q"] = wrong
        write_delta(written["one"], checkpoint.config, found)
        with pytest.raises(ValueError, match=r"layers\.0\.q\.alpha is (nan|inf), expected a fin"):
            read_delta(written["one"], checkpoint.config)


@pytest.mark.parametrize("size", [0, 7, 100, 3900])
def test_a_file_that_is_cut_off_is_refused(folders, written, size):
    """Empty, in its header, in its data."""
    written["one"].write_bytes(written["one"].read_bytes()[:size])
    with pytest.raises(ValueError, match=r"^delta: '.*': no intact safetensors file: [^\n]*$"):
        Model.from_pretrained(folders["base"], weights="half", deltas={"it": written["one"]})


def test_files_that_are_something_else(folders, written, tmp_path):
    """Nothing, a folder, a model, a delta of another base, a base that is another kind."""
    model = folders["base"] / "model.safetensors"
    for path, kind, words in (
        (tmp_path / "none", FileNotFoundError, "is not a file"),
        (tmp_path, FileNotFoundError, "is not a file"),
        (model, ValueError, "format None version None, expected 'ternops delta'"),
    ):  # fmt: skip
        with pytest.raises(kind, match=words):
            Model.from_pretrained(folders["base"], weights="half", deltas={"it": path})
    with pytest.raises(ValueError, match=r"^deltas\['it'\]: of a base whose checksum is"):
        Model.from_pretrained(folders["two"], weights="half", deltas={"it": written["one"]})
    with pytest.raises(ValueError, match=r"q_proj.weight is not ternary"):
        Model.from_pretrained(folders["base"], deltas={"it": written["one"]})
    with pytest.raises(ValueError, match=r"^checkpoint: q in layer 0 is ternary, expected floats"):
        Model.from_pretrained(TINY, weights="half")


def test_an_older_file_stays_if_writing_fails(folders, written, tmp_path, capsys):
    """Whole or not at all."""
    before = written["one"].read_bytes()
    (folders["one"] / "model.safetensors").write_bytes(b"")
    refused(capsys, "it is empty", folders["base"], folders["one"], written["one"])
    assert written["one"].read_bytes() == before
    refused(capsys, "Is a directory", folders["base"], folders["two"], tmp_path)
    arguments = (folders["base"], folders["two"], written["one"], "--distill", tmp_path / "none")
    refused(capsys, "--distill: none': No such file", *arguments)
    assert written["one"].read_bytes() == before
