"""The tokenizer in a GGUF file gives the tokens of the one that it was made from."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from tokenizers import Tokenizer

from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_tokenizer import build_tokenizer, end_tokens
from ternops.decoder.formats.loading import TINY
from tests.helpers import gguf_files


@pytest.fixture(scope="module")
def tiny():
    """The tokenizer of the packaged checkpoint."""
    return Tokenizer.from_file(str(TINY / "tokenizer.json"))


@pytest.fixture
def byte_level():
    """What a file holds of it."""
    return gguf_files.tokenizer_metadata(TINY / "tokenizer.json", "gpt-2")


def in_file(tmp_path, tokenizer):
    """A file of a model with these keys, written and opened."""
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", gguf_files.random_values(gguf_files.LLAMA), tokenizer=tokenizer
    )
    return Gguf(path)


def read(tmp_path, tokenizer):
    """The tokenizer of that file."""
    return in_file(tmp_path, tokenizer).tokenizer()


def test_the_packaged_tokenizer(tmp_path, tiny, byte_level):
    """The same tokens and texts, with and without special tokens."""
    found = read(tmp_path, byte_level)
    assert found.get_vocab() == tiny.get_vocab()
    for text in gguf_files.TEXTS:
        for special in (True, False):
            ids = tiny.encode(text, add_special_tokens=special).ids
            assert found.encode(text, add_special_tokens=special).ids == ids
            assert found.decode(ids, skip_special_tokens=special) == tiny.decode(ids, special)


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", "I'm 1234  x\n y!?", ["I", "'m", "Ġ1234", "Ġ", "Ġx", "Ċ", "Ġy", "!?"]),
        ("llama-bpe", "I'M 12345  x\n\n y!?\n", ["I", "'M", "Ġ", "123", "45", "Ġ", "Ġx", "ĊĊ",
                                                "Ġy", "!?Ċ"]),
        ("falcon3", "a.b 1234", ["a", ".b", "Ġ", "123", "4"]),
        ("qwen2", "a.b 1234", ["a", ".b", "Ġ", "1", "2", "3", "4"]),
        ("smollm", "a.b 1234", ["a", ".", "b", "Ġ", "1", "2", "3", "4"]),
        ("default", "a.b 12345", ["a", ".", "b", "Ġ", "123", "45"]),
    ],
)  # fmt: skip
def test_how_text_is_cut(tmp_path, byte_level, pre, text, pieces):
    """The pieces of each kind, before any merge: digits and signs tell them apart."""
    cut = read(tmp_path, byte_level | {"tokenizer.ggml.pre": pre}).pre_tokenizer
    assert [piece for piece, _ in cut.pre_tokenize_str(text)] == pieces


def test_whole_words_need_no_merges(byte_level):
    """As in LLaMA 3's tokenizer: a piece that is a token is that token."""
    tokens = byte_level["tokenizer.ggml.tokens"]
    tokens[1000] = "Ġzq"
    byte_level["tokenizer.ggml.merges"] = byte_level["tokenizer.ggml.merges"][:100]
    for pre, whole in (("gpt-2", False), ("llama-bpe", True)):
        found = build(byte_level | {"tokenizer.ggml.pre": pre})
        assert (found.encode("a zq", add_special_tokens=False).ids[1:] == [1000]) == whole


def build(metadata):
    """From a dict, with lists of numbers as arrays, as a file gives them."""
    arrays = {
        key: np.array(value)
        for key, value in metadata.items()
        if isinstance(value, list) and not isinstance(value[0], str)
    }
    return build_tokenizer(metadata | arrays)


@pytest.mark.parametrize(
    ("pre", "add_bos", "add_eos", "begins", "ends"),
    [
        ("gpt-2", None, None, False, False),
        ("gpt-2", True, None, True, False),
        ("gpt-2", True, True, True, True),
        ("gpt-2", False, True, False, True),
        ("llama-bpe", None, None, True, False),
        ("llama-bpe", False, None, False, False),
    ],
)
def test_begin_and_end_tokens(tmp_path, byte_level, pre, add_bos, add_eos, begins, ends):
    """As the file says; where it does not, LLaMA 3's tokenizer adds the first."""
    keys = {"tokenizer.ggml.pre": pre, "tokenizer.ggml.add_bos_token": add_bos,
            "tokenizer.ggml.add_eos_token": add_eos}  # fmt: skip
    ids = read(tmp_path, byte_level | keys).encode("x").ids
    assert (ids[0] == 0) == begins
    assert (ids[-1] == 1) == ends
    assert len(ids) == 1 + begins + ends


def test_composed_characters(byte_level):
    """Qwen2's tokenizer composes characters first, GPT-2's does not."""
    for pre, composes in (("qwen2", True), ("gpt-2", False)):
        found = build(byte_level | {"tokenizer.ggml.pre": pre})
        same = found.encode("e\u0301").ids == found.encode("\u00e9").ids
        assert same == composes


def test_an_end_token_is_special_whatever_its_type(byte_level):
    """It does not come out as text."""
    byte_level["tokenizer.ggml.token_type"][1] = 4
    found = build(byte_level)
    assert found.encode("<|end_of_text|>", add_special_tokens=False).ids == [1]
    assert found.decode([1]) == ""


def test_a_file_without_a_pre_tokenizer(byte_level):
    """llama.cpp's default, but LLaMA 3's for its vocabulary: BitNet 2B4T's files lack the key."""
    del byte_level["tokenizer.ggml.pre"]
    assert pieces(build(byte_level), "ab12.") == ["ab", "12", "."]
    tokens = byte_level["tokenizer.ggml.tokens"]
    tokens[0] = "<first>"
    tokens += [f"<{number}>" for number in range(128000 - len(tokens))] + ["<|begin_of_text|>"]
    byte_level["tokenizer.ggml.token_type"] = [1] * len(tokens)
    assert pieces(build(byte_level), "ab12.") == ["ab", "12", "."]
    assert pieces(build(byte_level), "'S 1234") == ["'S", "Ġ", "123", "4"]


def pieces(tokenizer, text):
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def test_added_tokens(tmp_path, byte_level):
    """Control tokens are special, user-defined ones are not; both are found as they are."""
    byte_level["tokenizer.ggml.tokens"][500] = "<tool>"
    byte_level["tokenizer.ggml.tokens"][501] = "two words"
    byte_level["tokenizer.ggml.token_type"][500] = 3
    byte_level["tokenizer.ggml.token_type"][501] = 4
    # Their merges are gone with the tokens.
    vocabulary = set(byte_level["tokenizer.ggml.tokens"])
    byte_level["tokenizer.ggml.merges"] = [
        merge for merge in byte_level["tokenizer.ggml.merges"]
        if {*merge.split(" "), merge.replace(" ", "")} <= vocabulary
    ]  # fmt: skip
    found = read(tmp_path, byte_level)
    ids = found.encode("x<tool>two wordsy", add_special_tokens=False).ids
    assert ids[1:3] == [500, 501]
    assert found.decode(ids) == "xtwo wordsy"
    assert found.decode(ids, skip_special_tokens=False) == "x<tool>two wordsy"


@pytest.fixture(scope="module")
def sentence_piece():
    """A tokenizer and the keys of its vocabulary."""
    return gguf_files.sentence_piece()


def test_sentence_piece(tmp_path, sentence_piece):
    """Merges out of scores, bytes for what is not a token, a space in front."""
    original, metadata = sentence_piece
    found = read(tmp_path, metadata)
    for text in gguf_files.TEXTS:
        if "<|" not in text:
            ids = original.encode(text, add_special_tokens=False).ids
            assert found.encode(text, add_special_tokens=False).ids == ids
            assert found.encode(text).ids == [1, *ids]
            assert found.decode(ids) == original.decode(ids, False) == text
    ids = found.encode("a<s>b", add_special_tokens=False).ids
    assert found.decode(ids[:1] + ids[2:]) == "a b"
    assert ids[1] == 1


def test_sentence_piece_without_the_space(tmp_path, sentence_piece):
    """add_space_prefix says whether a text begins with a space."""
    _, metadata = sentence_piece
    found = read(tmp_path, metadata | {"tokenizer.ggml.add_space_prefix": False})
    for text in ("def x", " def x", ""):
        ids = found.encode(text, add_special_tokens=False).ids
        assert found.decode(ids) == text
    assert found.encode("def").ids != read(tmp_path, metadata).encode("def").ids


def test_special_tokens_and_the_template(tmp_path, byte_level):
    """What chat templates name, the template itself, and what ends a turn."""
    byte_level["tokenizer.ggml.tokens"][700] = "<|eot_id|>"
    byte_level["tokenizer.ggml.token_type"][700] = 3
    template = {"tokenizer.chat_template": "{{ messages }}"}
    file = in_file(tmp_path, byte_level | template | {"tokenizer.ggml.eom_token_id": 5})
    assert file.special_tokens() == {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
    }
    assert file.chat_template() == "{{ messages }}"
    assert file.config.eos == (1, 5, 700)
    bare = in_file(tmp_path, {"tokenizer.ggml.eot_token_id": 7})
    assert bare.config.eos == (7,)
    assert bare.special_tokens() == {}
    assert bare.chat_template() is None
    with pytest.raises(FileNotFoundError, match=r"^model: .*a\.gguf' has no tokenizer$"):
        bare.tokenizer()
    with pytest.raises(ValueError, match=r"^tokenizer\.chat_template is 3, expected a string$"):
        in_file(tmp_path, {"tokenizer.chat_template": 3}).chat_template()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model", None, "tokenizer.ggml.model is None, expected gpt2 or llama"),
        ("model", "bert", "tokenizer.ggml.model is 'bert'"),
        ("pre", "tekken", "tokenizer.ggml.pre is 'tekken', expected one of llama-bpe"),
        ("pre", 3, "tokenizer.ggml.pre is 3"),
        ("tokens", ["a", "a"], "tokenizer.ggml.tokens: 'a' occurs twice"),
        ("tokens", [1, 2], "tokenizer.ggml.tokens is array([1, 2]), expected an array of strings"),
        ("token_type", [1, 1], "tokenizer.ggml.token_type: expected 1024 numbers"),
        ("token_type", ["a"], "tokenizer.ggml.token_type: expected 1024 numbers"),
        ("merges", None, "tokenizer.ggml.merges is missing"),
        ("merges", ["ab"], "tokenizer.ggml.merges: 'ab', expected two parts"),
        ("merges", ["a b c"], "tokenizer.ggml.merges: 'a b c', expected two parts"),
        ("merges", ["a nothing"], "tokenizer.ggml.merges: "),
        ("bos_token_id", -1.0, "tokenizer.ggml.bos_token_id is -1.0"),
        ("add_bos_token", 1, "tokenizer.ggml.add_bos_token is 1, expected a bool"),
    ],
)
def test_a_bad_tokenizer_is_named(byte_level, key, value, words):
    """One line with the key, its value and what was expected."""
    metadata = byte_level | {f"tokenizer.ggml.{key}": value}
    if value is None:
        del metadata[f"tokenizer.ggml.{key}"]
    if key == "tokens":
        del metadata["tokenizer.ggml.token_type"]
    with pytest.raises(ValueError, match="tokenizer") as caught:
        build(metadata)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scores", [None, [0.0], [float("nan")] * 900])
def test_bad_scores_are_named(sentence_piece, scores):
    """Missing, too few, or not comparable."""
    metadata = dict(sentence_piece[1])
    if scores is None:
        del metadata["tokenizer.ggml.scores"]
    else:
        metadata["tokenizer.ggml.scores"] = scores
    with pytest.raises(ValueError, match=r"^tokenizer\.ggml\.scores: expected 900 numbers"):
        build(metadata)


@pytest.mark.parametrize("number", [1024, 2**32 - 1])
def test_a_special_token_out_of_range(tmp_path, byte_level, number):
    """The file opens, as it does in llama.cpp; the token is absent, and one line says so."""
    names = ("bos", "eos", "padding", "eot")
    keys = {f"tokenizer.ggml.{name}_token_id": number for name in names}
    byte_level["tokenizer.ggml.tokens"][1] = "</s>"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        file = in_file(tmp_path, byte_level | keys)
        assert file.config.eos == ()
        assert file.special_tokens() == {}
        assert file.tokenizer().encode("x").ids == [89]
    assert sorted(str(each.message) for each in caught) == sorted(
        f"{key} is {number}, expected 0 to 1023: there is no such token" for key in keys
    )


def test_special_tokens_of_all_names(tmp_path, byte_level):
    """As transformers names them."""
    keys = ("bos", "eos", "unknown", "seperator", "padding", "cls", "mask")
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    numbers = {f"tokenizer.ggml.{key}_token_id": at for at, key in enumerate(keys)}
    found = in_file(tmp_path, byte_level | numbers).special_tokens()
    tokens = byte_level["tokenizer.ggml.tokens"]
    assert found == {f"{name}_token": tokens[at] for at, name in enumerate(names)}


def test_end_tokens_need_no_tokens():
    """Numbers without a vocabulary, each once."""
    assert end_tokens({"tokenizer.ggml.eos_token_id": 9, "tokenizer.ggml.eot_token_id": 9}) == (9,)
    assert end_tokens({}) == ()
    with pytest.warns(UserWarning, match="eos_token_id is -1, expected 0 or more"):
        assert end_tokens({"tokenizer.ggml.eos_token_id": -1}) == ()


def test_without_the_tokenizers_package(tmp_path, byte_level, monkeypatch):
    """One line says what to install."""
    file = in_file(tmp_path, byte_level)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r"^tokenizers is not installed: pip install"):
        file.tokenizer()
