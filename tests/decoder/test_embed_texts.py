"""Texts to vectors, as the files of a model say: pooling, prompts, limits, other dtypes."""

from __future__ import annotations

import pickle
import threading
import warnings

import gguf
import numpy as np
import pytest

from bench.models import byte_tokenizer
from ternops.decoder import Model, reference
from ternops.decoder.embed import unit_length
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.formats.pooling import Pooling
from tests.helpers import cases, embedders
from tests.helpers.small_models import small_config, small_model

TEXTS = ["hello", "", "a longer text, of more than a few tokens", "Hello", "ümläut"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A BitNet embedding model's folder, without modules.json."""
    return embedders.folder(tmp_path_factory.mktemp("embed") / "plain")


@pytest.fixture
def copied(plain, tmp_path):
    """One to write files into."""
    (tmp_path / "model").mkdir()
    for file in plain.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "model"


def states(model, text):
    """Of a text's bytes and the EOS, by the oracle."""
    space = len(byte_tokenizer.SPECIAL) + 256
    tokens = [space if byte == 32 else byte + 3 for byte in text.encode()]
    return reference.states(model, [*tokens, byte_tokenizer.END])


def pooled(model, mean, texts=TEXTS):
    """By the oracle."""
    found = [states(model, text) for text in texts]
    rows = [x.astype(np.float64).mean(0).astype(np.float32) if mean else x[-1] for x in found]
    return np.stack(rows)


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("mode", ["lasttoken", "mean"])
def test_pooling_is_what_the_files_say(copied, mode, version):
    """In both ways to write it; vectors of length 1, or as they are."""
    embedders.write_modules(copied, mode, version=version)
    model = Model.from_pretrained(copied, threads=2)
    found = model.embed(TEXTS, normalize=False)
    expected = pooled(model, mode == "mean")
    assert found.dtype == np.float32
    if mode == "lasttoken":
        assert cases.same_bits(found, expected)
    else:
        assert np.abs(found - expected).max() <= np.spacing(np.abs(expected).max())
    assert cases.same_bits(model.embed(TEXTS), unit_length(found))
    assert np.allclose(np.linalg.norm(model.embed(TEXTS), axis=1), 1, atol=1e-6)


def test_order_and_company_change_no_bit(copied):
    """Nor do threads; a mean adds up tokens of several passes."""
    embedders.write_settings(copied, "config.json", max_position_embeddings=1300)
    embedders.write_settings(copied, "tokenizer_config.json", model_max_length=1300)
    embedders.write_modules(copied, "mean")
    texts = [*TEXTS, "x" * 1200, "y" * 511, *("z" * count for count in range(60, 80))]
    found = Model.from_pretrained(copied, threads=1).embed(texts)
    model = Model.from_pretrained(copied, threads=2)
    assert cases.same_bits(model.embed(texts[::-1])[::-1], found)
    for at in (0, 1, 5, 6, 20):
        assert cases.same_bits(model.embed([texts[at]])[0], found[at])


def test_without_files(plain, tmp_path):
    """The last token's of a BitNet embedding model; of another model with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Model.from_pretrained(plain, threads=2)
        found = model.embed(TEXTS, normalize=False)
    assert cases.same_bits(found, pooled(model, False))
    other = Model.from_pretrained(embedders.folder(tmp_path / "other", "qwen3"))
    with pytest.warns(UserWarning, match="no modules.json says how to embed texts: the last"):
        other.embed(["a"])


def test_packed_files_keep_it(copied, tmp_path):
    """Pooling, prompts and limits, and so the bits."""
    embedders.write_modules(copied, "mean", kinds=("Transformer", "Pooling"))
    prompts = {"query": "find: ", "document": ""}
    embedders.write_settings(
        copied, "config_sentence_transformers.json", prompts=prompts, default_prompt_name="query"
    )
    embedders.write_settings(copied, "sentence_bert_config.json", max_seq_length=60)
    convert(copied, tmp_path / "packed.safetensors")
    pooling = open_checkpoint(tmp_path / "packed.safetensors").pooling()
    assert pooling == open_checkpoint(copied).pooling()
    assert pooling == Pooling(
        mode="mean", normalizes=False, prompts=prompts, prompt="query", max_tokens=60,
        source="modules.json",
    )  # fmt: skip
    found = [
        Model.from_pretrained(each, threads=2).encode(TEXTS)
        for each in (copied, tmp_path / "packed.safetensors")
    ]
    assert cases.same_bits(*found)


def test_a_packed_file_keeps_what_is_not_computed(copied, tmp_path):
    """Its other uses are open; its embeddings are refused as the folder's are."""
    embedders.write_modules(copied, "cls")
    convert(copied, tmp_path / "packed.safetensors")
    for path in (copied, tmp_path / "packed.safetensors"):
        model = Model.from_pretrained(path, threads=1)
        assert len(list(model.generate([5], 3))) <= 3
        with pytest.raises(ValueError, match="pooling is 'cls', expected lasttoken or mean"):
            model.embed(["a"])


@pytest.mark.parametrize("text", ["{", "[]", '{"mode": 1}', '{"other": 1}', '{"prompts": []}'])
def test_damaged_pooling_of_a_packed_file(text):
    """One line."""
    with pytest.raises(ValueError, match=r"^pooling: [^\n]+$"):
        Pooling.from_json(text)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        ({"mode": "cls"}, "modules.json: pooling is 'cls', expected lasttoken or mean"),
        ({"mode": "max"}, "modules.json: pooling is 'max', expected"),
        ({"mode": "weightedmean"}, "modules.json: pooling is 'weightedmean', expected"),
        ({"mode": ["mean", "lasttoken"]}, r"pooling is 'mean\+lasttoken', expected"),
        ({"mode": "new", "version": 6}, "modules.json: pooling is 'new', expected"),
        ({"mode": ["max", "mean"], "version": 6}, r"pooling is 'max\+mean', expected"),
        ({"kinds": ("Transformer", "Pooling", "Dense", "Normalize")},
         "modules.json: the module Dense, expected Transformer, Pooling and Normalize alone"),
        ({"kinds": ("Transformer",)}, "modules.json: 0 modules Pooling, expected one"),
    ],
)  # fmt: skip
def test_what_is_not_known(copied, write, words):
    """One line each."""
    embedders.write_modules(copied, **write)
    with pytest.raises(ValueError, match=words):
        Model.from_pretrained(copied, threads=1).embed(["a"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("modules.json", "{}", r"modules.json' is no JSON list of objects|0 modules Pooling"),
        ("modules.json", "[1]", "modules.json' is no JSON list of objects with type and path"),
        ("modules.json", "[", "modules.json' is no JSON list of objects with type and path"),
        ("modules.json",
         '[{"type": "a.Transformer", "path": "0"}, {"type": "a.Pooling", "path": "1_Pooling"}]',
         "modules.json: the model is in '0', expected it in the folder itself"),
        ("1_Pooling/config.json", "", "1_Pooling/config.json' is not JSON: it is empty"),
        ("config_sentence_transformers.json", '{"prompts": [1]}', "prompts is"),
        ("config_sentence_transformers.json", '{"prompts": {}, "default_prompt_name": "a"}',
         "default_prompt_name is 'a', expected a name in prompts"),
    ],
)  # fmt: skip
def test_damaged_files(copied, name, text, words):
    """One line, which names the file."""
    embedders.write_modules(copied)
    (copied / name).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        open_checkpoint(copied).pooling()
    assert "\n" not in str(caught.value)


def test_a_missing_pooling_is_named(copied):
    """modules.json without the folder."""
    embedders.write_modules(copied)
    (copied / "1_Pooling" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"1_Pooling' has no config\.json"):
        Model.from_pretrained(copied).embed(["a"])


def test_no_texts(plain):
    """An array without rows, of each dtype."""
    model = Model.from_pretrained(plain)
    assert model.embed([]).shape == (0, 100)
    assert model.embed([]).dtype == np.float32
    assert model.embed([], dtype="int8").shape == (0, 100)
    assert model.embed([], dtype="binary").shape == (0, 13)


@pytest.mark.parametrize(
    ("texts", "error", "words"),
    [
        ("hello", TypeError, "texts: str, expected a list of strings"),
        (b"hello", TypeError, "texts: bytes, expected a list of strings"),
        (None, TypeError, "texts: NoneType, expected a list of strings"),
        (["a", 1], TypeError, r"texts\[1\]: int, expected a string"),
        (["a", None], TypeError, r"texts\[1\]: NoneType, expected a string"),
        (["a", "\ud800"], ValueError, r"texts\[1\]: not Unicode at character 0"),
        (["a", "x" * 90], ValueError, r"texts\[1\]: 91 tokens, expected at most 90"),
    ],
)
def test_bad_texts(plain, texts, error, words):
    """One line, which names the text."""
    model = Model.from_pretrained(plain)
    with pytest.raises(error, match=f"^{words}$"):
        model.embed(texts)


def test_a_text_of_no_tokens(copied):
    """Where the tokenizer adds none."""
    embedders.write_settings(copied, "tokenizer.json", post_processor=None)
    with pytest.raises(ValueError, match=r"texts\[1\]: '' has no tokens, expected some"):
        Model.from_pretrained(copied).embed(["a", ""])


def test_a_token_that_the_model_has_not(tmp_path):
    """As in generate."""
    model = Model.from_pretrained(embedders.folder(tmp_path / "model", vocabulary=100))
    words = r"texts\[1\]: '<0x7A>' is 125 and to the model no token, expected 0 to 99"
    with pytest.raises(ValueError, match=words):
        model.embed(["A", "z"])


def test_limits(copied):
    """The least of the context and what the files say; what is cut off keeps its EOS."""
    embedders.write_settings(copied, "sentence_bert_config.json", max_seq_length=20)
    embedders.write_settings(copied, "tokenizer_config.json", model_max_length=30)
    embedders.write_modules(copied)
    model = Model.from_pretrained(copied)
    with pytest.raises(ValueError, match=r"texts\[0\]: 21 tokens, expected at most 20"):
        model.embed(["x" * 20])
    short = model.embed(["x" * 19])
    assert cases.same_bits(model.embed(["x" * 40], truncate=True), short)
    assert cases.same_bits(model.encode(["x" * 40]), short)
    with pytest.raises(ValueError, match="21 tokens"):
        model.embed(["x" * 20])  # also after a text was cut off
    embedders.write_settings(copied, "sentence_bert_config.json", max_seq_length=None)
    embedders.write_settings(copied, "tokenizer_config.json", model_max_length=10**30)
    assert open_checkpoint(copied).pooling().max_tokens == 0


def test_a_prompt(copied):
    """Before each text; a mean that leaves it out is over the other tokens, the EOS as well."""
    embedders.write_modules(copied, "mean", include_prompt=False)
    model = Model.from_pretrained(copied)
    found = model.embed(["text"], normalize=False, prompt="find: ")[0]
    rows = states(model, "find: text").astype(np.float64)[len("find: ") :]
    assert len(rows) == 5
    assert np.allclose(found, rows.mean(0), rtol=1e-6)
    embedders.write_modules(copied, "mean")
    model = Model.from_pretrained(copied)
    whole = model.embed(["text"], prompt="find: ")
    assert cases.same_bits(whole, model.embed(["find: text"]))


def test_encode_is_that_of_sentence_transformers(copied):
    """A string gives a vector; prompts have names; the files say whether lengths are 1."""
    embedders.write_settings(
        copied, "config_sentence_transformers.json", prompts={"query": "find: ", "none": ""},
        default_prompt_name="query",
    )  # fmt: skip
    embedders.write_modules(copied)
    model = Model.from_pretrained(copied)
    assert cases.same_bits(model.encode("a"), model.embed(["find: a"], prompt="")[0])
    assert cases.same_bits(model.encode("a"), model.embed(["a"])[0])
    assert cases.same_bits(model.encode(["a", "b"], "none"), model.embed(["a", "b"], prompt=""))
    assert cases.same_bits(model.encode(["a"], prompt="x"), model.embed(["xa"], prompt=""))
    assert cases.same_bits(model.encode(["a"], prompt=""), model.embed(["a"], prompt=""))
    found = model.encode(["a", "b"], precision="binary")
    assert cases.same_bits(found, model.embed(["a", "b"], dtype="binary"))
    assert model.encode([]).shape == (0, 100)
    with pytest.raises(ValueError, match="prompt_name='other': expected one of 'query', 'none'"):
        model.encode(["a"], "other")
    embedders.write_modules(copied, kinds=("Transformer", "Pooling"))
    model = Model.from_pretrained(copied)
    long = model.encode(["a"])
    assert cases.same_bits(long, model.embed(["a"], normalize=False))
    assert cases.same_bits(model.encode(["a"], normalize_embeddings=True), unit_length(long))


def test_gguf_files_say_it(plain, tmp_path):
    """In the metadatum that llama.cpp reads; `quantize` writes it from a folder's files."""
    folder = embedders.folder(tmp_path / "model", "qwen3")
    for mode, number in (("mean", 1), ("lasttoken", 3)):
        embedders.write_modules(folder, mode)
        convert_to_gguf(folder, tmp_path / "model.gguf")
        pooling = open_checkpoint(tmp_path / "model.gguf").pooling()
        assert pooling == Pooling(mode=mode, source="qwen3.pooling_type")
        reader = gguf.GGUFReader(tmp_path / "model.gguf")
        assert reader.fields["qwen3.pooling_type"].contents() == number
        found, theirs = (
            Model.from_pretrained(each, threads=2).embed(TEXTS)
            for each in (folder, tmp_path / "model.gguf")
        )
        # Its tokenizer adds the EOS by a flag, and its embedding is float16.
        assert np.abs(found - theirs).max() < 0.02
    embedders.write_modules(folder, "cls")
    said = []
    convert_to_gguf(folder, tmp_path / "model.gguf", say=said.append)
    assert said == ["without pooling 'cls', of which there is nothing here"]
    assert open_checkpoint(tmp_path / "model.gguf").pooling() == Pooling()


def test_threads_that_embed_at_the_same_time(plain):
    """Each has the bits of one alone, cut off or not."""
    model, found = Model.from_pretrained(plain, threads=1), {}
    expected = model.embed(TEXTS), model.encode(["x" * 200])

    def embed(number):
        found[number] = model.encode(["x" * 200]) if number % 2 else model.embed(TEXTS)

    crew = [threading.Thread(target=embed, args=(number,)) for number in range(8)]
    for each in crew:
        each.start()
    for each in crew:
        each.join()
    for number in range(8):
        assert cases.same_bits(found[number], expected[number % 2])


def test_lower_case(copied):
    """As do_lower_case says."""
    embedders.write_modules(copied)
    embedders.write_settings(copied, "sentence_bert_config.json", do_lower_case=True)
    model = Model.from_pretrained(copied)
    assert cases.same_bits(*model.embed(["HELLO Ä", "hello ä"]))


def test_dtypes(plain):
    """As sentence-transformers quantises, of vectors of length 1."""
    model = Model.from_pretrained(plain)
    found = model.embed(TEXTS)
    assert (found.min(axis=0) < found.max(axis=0)).all()
    with pytest.warns(UserWarning, match=r"dtype='int8': buckets of 5 embedding\(s\) alone"):
        int8 = model.embed(TEXTS, dtype="int8")
    assert (int8.min(axis=0) == -128).all()
    assert (int8.max(axis=0) >= 126).all()
    ranges = np.stack([np.full(100, -1.0), np.full(100, 1.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = model.embed(TEXTS, dtype="int8", ranges=ranges)
        model.embed(20 * TEXTS, dtype="int8")
    assert np.abs((given.astype(int) + 128) * (2 / 255) - 1 - found).max() <= 2 / 255 + 1e-6
    binary = model.embed(TEXTS, dtype="binary")
    bits = np.unpackbits(binary.view(np.uint8) ^ 128, axis=1)
    assert (bits[:, :100] == (found > 0)).all()
    assert not bits[:, 100:].any()
    with pytest.raises(ValueError, match="dtype='half': expected one of float32, int8, binary"):
        model.embed([], dtype="half")


def test_weights_alone_know_no_tokenizer():
    """One line."""
    model = small_model(small_config("hidden 24", "qwen3"))
    with pytest.raises(ValueError, match="model: made of weights alone, expected one of from_pre"):
        model.embed(["a"])
    assert model.embed([]).shape == (0, 24)


def test_a_pickled_model_embeds(copied):
    """Also after its files are gone, if it has embedded before."""
    embedders.write_modules(copied, "mean")
    model = Model.from_pretrained(copied)
    unread = pickle.loads(pickle.dumps(model))
    found = model.embed(TEXTS)
    assert cases.same_bits(unread.embed(TEXTS), found)
    kept = pickle.dumps(model)
    for file in copied.glob("*.json"):
        file.unlink()
    assert cases.same_bits(pickle.loads(kept).embed(TEXTS), found)
