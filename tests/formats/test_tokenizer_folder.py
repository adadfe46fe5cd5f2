"""The tokenizer of a Hugging Face folder is the one that transformers 5 makes of it."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest

from ternops.decoder import open_checkpoint
from ternops.decoder.formats import convert
from ternops.decoder.formats.hugging_face_config import read_config
from ternops.decoder.formats.loading import TINY
from ternops.decoder.text import load_tokenizer
from tests.helpers import internals
from tests.helpers.texts import text_of

_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"
_FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
_TRUNCATION = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
_PADDING = {
    "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1,
    "pad_type_id": 0, "pad_token": _END,
}  # fmt: skip


def _flags(content, **flags):
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {"content": content, **plain, "special": True, **flags}


def _typed(content, **flags):
    return {"__type": "AddedToken", **_flags(content, **flags)}


def _llama2():
    """A SentencePiece tokenizer as old versions wrote it: blanks made by its normalizer."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["<unk>", "<s>", "</s>", "\u2581", *bytes_, *"Helowrdabc", "\u2581\u2581", "\u2581H",
             "\u2581He", "\u2581Hel", "\u2581Hell", "\u2581Hello"]  # fmt: skip
    begin = {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
    single = [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    second = {"Sequence": {"id": "B", "type_id": 0}}
    blank = {"String": " "}
    return {
        "added_tokens": [{"id": at, **_flags(words[at])} for at in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": blank, "content": "\u2581"},
        ]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": [*single, second],
            "special_tokens": {"<s>": begin},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "byte_fallback": True,
            "vocab": {word: at for at, word in enumerate(words)},
            "merges": ["\u2581 \u2581", "\u2581 H", "\u2581H e", "\u2581He l", "\u2581Hel l",
                       "\u2581Hell o"],
        },
    }  # fmt: skip


CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
#: The files of a folder; "tokenizer.json" and "config.json" change those of the tiny model.
FOLDERS = {
    "nothing": {},
    "truncation": {CONFIG: _FAST, "tokenizer.json": {"truncation": _TRUNCATION}},
    "padding": {CONFIG: _FAST, "tokenizer.json": {"padding": {**_PADDING, "pad_token": "<p>"}}},
    "decoder": {CONFIG: _FAST | {"added_tokens_decoder": {
        "1024": _flags("<|im_end|>"), "0": _flags(_BEGIN, rstrip=True)}}},
    "flags": {CONFIG: _FAST | {"added_tokens_decoder": {
        "1024": _flags("<x>", lstrip=True, rstrip=True, special=False, normalized=True),
        "1025": _flags("wd", single_word=True, special=False)}}},
    "other numbers": {CONFIG: _FAST | {"added_tokens_decoder": {
        "1030": _flags("<b>"), "1024": _flags("<a>"), "200": _flags("<c>")}}},
    "decoder rules": {
        CONFIG: _FAST | {"added_tokens_decoder": {"1024": _flags("<q>")}, "bos_token": _BEGIN},
        MAP: {"eos_token": _END, "pad_token": "<p>"}, ADDED: {"<z>": 1025},
    },
    "map": {
        CONFIG: _FAST | {"bos_token": "<old>"},
        MAP: {"bos_token": _BEGIN, "eos_token": _flags(_END), "pad_token": "<p>",
              "additional_special_tokens": ["<e1>", "<e2>"]},
    },
    "map of extra ones": {
        CONFIG: _FAST | {"extra_special_tokens": ["<e0>"]},
        MAP: {"extra_special_tokens": ["<e1>"], "additional_special_tokens": ["<e3>"]},
    },
    "old extra ones": {
        CONFIG: _FAST | {"additional_special_tokens": []},
        MAP: {"additional_special_tokens": ["<e3>"]},
    },
    "no old extra ones": {
        CONFIG: _FAST | {"additional_special_tokens": None},
        MAP: {"additional_special_tokens": ["<e3>"]},
    },
    "extra ones with names, too": {
        CONFIG: _FAST | {"extra_special_tokens": {"image_token": "<img>"},
                         "additional_special_tokens": ["<e1>"]},
    },
    "extra ones of the map without flags": {
        CONFIG: _FAST, MAP: {"extra_special_tokens": [{"content": "def", "single_word": True}]},
    },
    "no extra ones of the map": {
        CONFIG: _FAST | {"extra_special_tokens": ["<e0>"]},
        MAP: {"extra_special_tokens": None, "additional_special_tokens": ["<e3>"]},
    },
    "names in two files": {
        CONFIG: _FAST | {"image_token": "<img>", "video_token": _typed("<vid>")},
        MAP: {"image_token": "<other>", "video_token": "<aud>"},
    },
    "padding of GPT2": {
        CONFIG: {"tokenizer_class": "GPT2Tokenizer"},
        "tokenizer.json": {"padding": {**_PADDING, "pad_token": "<p>"}},
    },
    "map without": {CONFIG: _FAST | {"bos_token": _BEGIN}, MAP: {"bos_token": None}},
    "added": {CONFIG: _FAST | {"pad_token": "<p>"}, ADDED: {"<p>": 1024, "<n>": 1025}},
    "added once more": {CONFIG: _FAST, ADDED: {_BEGIN: 1024, _END: 1025}},
    "added and map": {
        CONFIG: _FAST, MAP: {"pad_token": "<p>", "additional_special_tokens": ["<n>"]},
        ADDED: {"<p>": 1025, "<n>": 1024, "<m>": 3},
    },
    "named ones": {CONFIG: _FAST | {
        "extra_special_tokens": {"image_token": "<img>", "other": "<other>"},
        "audio_token": "<aud>", "video_token": _typed("<vid>")}},
    "both extra ones": {CONFIG: _FAST | {
        "extra_special_tokens": ["<e1>"], "additional_special_tokens": ["<e2>"]}},
    "objects": {CONFIG: _FAST | {
        "bos_token": _typed(_BEGIN, special=False),
        "pad_token": _typed("<p>", special=False, lstrip=True),
        "additional_special_tokens": [_typed("<e2>", special=False), "def"]}},
    "empty ones": {CONFIG: _FAST | {"bos_token": "", "pad_token": "<p>"}},
    "words": {CONFIG: _FAST | {"pad_token": "def", "eos_token": "return"}},
    "add_bos_token": {
        CONFIG: _FAST | {"add_bos_token": True, "add_eos_token": True, "bos_token": _BEGIN,
                         "eos_token": _END},
        "tokenizer.json": {"post_processor": None},
    },
    "no add_bos_token": {CONFIG: _FAST | {"add_bos_token": False, "bos_token": _BEGIN}},
    "of config.json": {
        "config.json": {"tokenizer_class": "LlamaTokenizer"}, "tokenizer.json": _llama2(),
    },
    "Llama map": {
        CONFIG: {"tokenizer_class": "LlamaTokenizer"}, MAP: {"bos_token": "<b>", "unk_token": None},
        ADDED: {"<b>": 274, "<unk>": 0}, "tokenizer.json": _llama2(),
    },
}  # fmt: skip
for _class in ("LlamaTokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer", "Qwen2TokenizerFast",
               "TokenizersBackend"):  # fmt: skip
    _named = {"tokenizer_class": _class}
    FOLDERS |= {
        f"{_class} of bytes": {CONFIG: _named | {"pad_token": "<p>"}},
        f"{_class} and a decoder": {CONFIG: _named | {
            "add_prefix_space": True, "unk_token": None, "eos_token": _END,
            "added_tokens_decoder": {"1024": _flags("<|im_end|>"), "0": _flags(_BEGIN)},
            "extra_special_tokens": ["<e1>", "<|im_end|>"]}},
        f"{_class} of pieces": {CONFIG: _named, "tokenizer.json": _llama2()},
        f"{_class} legacy": {CONFIG: _named | {"legacy": True}, "tokenizer.json": _llama2()},
        f"{_class} without a blank": {
            CONFIG: _named | {"add_prefix_space": False, "bos_token": _typed("<s>"),
                              "pad_token": None, "model_max_length": 3},
            "tokenizer.json": _llama2(),
        },
    }  # fmt: skip
_named = {"tokenizer_class": "GemmaTokenizer"}
FOLDERS |= {
    "Gemma": {CONFIG: _named, "tokenizer.json": _llama2()},
    "Gemma with other names": {
        CONFIG: _named | {"bos_token": "<s>", "eos_token": _typed("</s>"), "pad_token": None,
                          "add_prefix_space": True, "extra_special_tokens": ["<e1>"]},
        "tokenizer.json": _llama2(),
    },
}  # fmt: skip

TEXTS = (
    "def f(x):\n    return  x  <x>  <|im_end|>y", "Hello  world <s> Hello</s>a", " lead", "",
    f"{_BEGIN} a <e0><e1><e2> <e3><p><n> wd<m><q><z>", "<img><other><aud><vid> wd swd <a><b><c>",
    "def return", "\n\n x\0y\u2028z <|endoftext|><|padding|> 123 I'm e\u0301 é😀",
)  # fmt: skip


def write(folder, files):
    """A folder with these files; the model is the tiny one."""
    shutil.copytree(TINY, folder)
    (folder / CONFIG).unlink()
    for name, value in files.items():
        path = folder / name
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**old, **value}))
    return folder


def quietly(folder):
    """Its tokenizer; some of the table give their tokens numbers that nobody can give them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "tokenizer: .* is token .*, not .* as its files say")
        return load_tokenizer(folder)


@pytest.mark.peers
@pytest.mark.parametrize("name", FOLDERS)
def test_transformers_makes_the_same(tmp_path, monkeypatch, name):
    """The same tokens and texts, special tokens by name, and the one that ends."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write(tmp_path / "x", FOLDERS[name])
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), quietly(folder)
    for text in TEXTS:
        for special in (True, False):
            ids = theirs(text, add_special_tokens=special).input_ids
            assert ours.encode(text, add_special_tokens=special).ids == ids
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.special_tokens() == theirs.special_tokens_map
    if theirs.eos_token:
        assert theirs.eos_token_id in checkpoint.config.eos


@pytest.mark.parametrize("name", ["truncation", "padding"])
def test_nothing_is_cut_off_or_filled_up(tmp_path, name):
    """Whatever a trainer left switched on, in a folder and in a packed file, also an old one."""
    folder = write(tmp_path / "x", FOLDERS[name])
    text = "def f(x): return x + 1\n"
    expected = load_tokenizer(TINY).encode(text).ids
    assert load_tokenizer(folder).encode(text).ids == expected
    convert.convert(folder, tmp_path / "new")
    with pytest.MonkeyPatch.context() as patch:  # as they were written before
        whole = (folder / "tokenizer.json").read_bytes()
        padded = whole.ljust(-(-len(whole) // 64) * 64)
        internals.replace_tokenizer(patch, padded)
        convert.convert(folder, tmp_path / "old")
    for path in (tmp_path / "new", tmp_path / "old"):
        tokenizer = open_checkpoint(path).tokenizer()
        assert tokenizer.encode(text).ids == expected
        assert tokenizer.truncation is tokenizer.padding is None
    raw = (tmp_path / "new").read_bytes()
    assert b'"truncation":null,"padding":null' in raw


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decoder", {"<|im_end|>": 1024}),
        ("other numbers", {"<c>": 1024, "<a>": 1025, "<b>": 1026}),
        ("decoder rules", {"<q>": 1024, "<p>": None, "<z>": None}),
        ("map", {_BEGIN: 0, _END: 1, "<p>": 1024, "<e1>": 1025, "<e2>": 1026, "<old>": None}),
        ("map of extra ones", {"<e0>": 1024, "<e1>": 1025, "<e3>": None}),
        ("added", {"<p>": 1024, "<n>": 1025}),
        ("named ones", {"<vid>": 1024, "<aud>": 1025, "<img>": 1026, "<other>": 1027}),
        ("LlamaTokenizer of pieces", {"<s>": 1, "</s>": 2}),
        ("no old extra ones", {"<e3>": None}),
        ("extra ones with names, too", {"<e1>": 1025, "<img>": 1024}),
        ("no extra ones of the map", {"<e0>": None, "<e3>": None}),
        ("names in two files", {"<aud>": 1024, "<img>": 1025, "<vid>": None, "<other>": None}),
        ("padding of GPT2", {"<p>": None}),
    ],
)
def test_tokens_of_other_files(tmp_path, name, expected):
    """They are tokens of the folder, and of what is packed of it."""
    folder = write(tmp_path / "x", FOLDERS[name])
    tokenizer = quietly(folder)
    for text, number in expected.items():
        assert tokenizer.token_to_id(text) == number
        if number is not None:
            assert tokenizer.encode(f"b{text}c", add_special_tokens=False).ids.count(number) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert.convert(folder, tmp_path / "packed")
    packed = open_checkpoint(tmp_path / "packed")
    assert packed.tokenizer().to_str() == tokenizer.to_str()
    assert packed.special_tokens() == open_checkpoint(folder).special_tokens()


def test_a_special_token_that_is_added_once_more(tmp_path):
    """Is no text, of the folder and of what is packed of it, though one file says nothing of it."""
    folder = write(tmp_path / "x", FOLDERS["added once more"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert.convert(folder, tmp_path / "packed")
    for tokenizer in (quietly(folder), open_checkpoint(tmp_path / "packed").tokenizer()):
        assert tokenizer.decode([0, 476, 1]) == "def"
        assert text_of(tokenizer, [0, 476, 1]) == "def"


def test_special_tokens_by_name(tmp_path):
    """For chat templates: of every file, and those with names of their own."""
    found = open_checkpoint(write(tmp_path / "a", FOLDERS["map"])).special_tokens()
    assert found == {"bos_token": _BEGIN, "eos_token": _END, "pad_token": "<p>"}
    found = open_checkpoint(write(tmp_path / "b", FOLDERS["named ones"])).special_tokens()
    assert found == {"video_token": "<vid>", "audio_token": "<aud>", "image_token": "<img>",
                     "other": "<other>"}  # fmt: skip
    found = open_checkpoint(write(tmp_path / "c", FOLDERS["Llama map"])).special_tokens()
    assert found == {"bos_token": "<b>", "eos_token": "</s>"}
    found = open_checkpoint(write(tmp_path / "d", FOLDERS["padding"])).special_tokens()
    assert found == {"pad_token": "<p>"}


@pytest.mark.parametrize(
    ("files", "eos"),
    [
        ({MAP: {"eos_token": _flags(_BEGIN)}}, (1, 0)),
        ({CONFIG: {"eos_token": "def"}}, (1, 476)),
        ({CONFIG: {"eos_token": "<e>", "added_tokens_decoder": {"9": _flags("<e>")}}}, (1, 1024)),
        ({CONFIG: {"eos_token": "<e>"}, ADDED: {"<a>": 7, "<e>": 1030}}, (1, 1025)),
        ({CONFIG: {"eos_token": "<e>", "bos_token": ""}}, (1, 1024)),
        ({CONFIG: {"eos_token": ""}}, (1,)),
        ({CONFIG: {"eos_token": None}, MAP: {}}, (1,)),
    ],
)  # fmt: skip
def test_what_ends_a_text(tmp_path, files, eos):
    """An eos_token that tokenizer.json has no added token for."""
    folder = write(tmp_path / "x", files)
    assert quietly(folder).token_to_id("def") == 476
    assert read_config(folder).eos == eos


def test_a_llama_tokenizer_is_made_anew(tmp_path):
    """One blank before the first word alone, none after a special token, unless it is legacy."""
    new = load_tokenizer(write(tmp_path / "a", FOLDERS["LlamaTokenizer of pieces"]))
    old = load_tokenizer(write(tmp_path / "b", FOLDERS["LlamaTokenizer legacy"]))
    plain = load_tokenizer(write(tmp_path / "c", FOLDERS["TokenizersBackend of pieces"]))
    found = [each.encode("Hello</s>Hello").tokens for each in (new, old, plain)]
    assert found[0] == ["<s>", "\u2581Hello", "</s>", "H", "e", "l", "l", "o"]
    assert found[1] == found[2] == ["<s>", "\u2581Hello", "</s>", "\u2581Hello"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokenizer_class": "T5Tokenizer"}, "tokenizer_class 'T5Tokenizer' is not known"),
        ({"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["x.X", None]}}, "own code"),
        ({"split_special_tokens": True}, "split_special_tokens is set"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.json"]}, "fast_tokenizer_files names other"),
        ({"added_tokens_decoder": {"1030": _flags("<x>")}},
         "'<x>' is token 1024, not 1030 as its files say"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_said(tmp_path, settings, words):
    """One line of warning."""
    folder = write(tmp_path / "x", {CONFIG: settings})
    with pytest.warns(UserWarning, match=r"^tokenizer: ") as caught:
        load_tokenizer(folder)
    assert [words in str(each.message) for each in caught] == [True]


@pytest.mark.parametrize(
    ("file", "value", "words"),
    [
        (CONFIG, {"tokenizer_class": 3}, "tokenizer_class is 3, expected a string"),
        (CONFIG, {"pad_token": 3}, "pad_token is 3, expected a string"),
        (CONFIG, {"pad_token": _flags("x", lstrip=3)}, "pad_token is {"),
        (CONFIG, {"extra_special_tokens": "x"}, "extra_special_tokens is 'x', expected a list"),
        (CONFIG, {"extra_special_tokens": [3]}, "extra_special_tokens is 3, expected a string"),
        (CONFIG, {"added_tokens_decoder": []}, "added_tokens_decoder is [], expected an object"),
        (CONFIG, {"added_tokens_decoder": {"x": _flags("x")}}, "added_tokens_decoder: 'x'"),
        (CONFIG, {"added_tokens_decoder": {"1": "x"}}, "added_tokens_decoder: '1': 'x'"),
        (CONFIG, {"added_tokens_decoder": {"1": {}}}, "added_tokens_decoder 1 is {}"),
        (MAP, {"bos_token": []}, "bos_token is [], expected a string"),
        (ADDED, {"x": "3"}, "'x' is '3', expected a number"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, value, words):
    """One line, from every reader of them."""
    folder = write(tmp_path / "x", {file: value})
    for reads in (load_tokenizer, read_config, lambda path: open_checkpoint(path).special_tokens()):
        with pytest.raises(ValueError, match=rf"^{file}: ") as caught:
            reads(folder)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_tokenizer_that_panics_is_refused(tmp_path):
    """As one whose post-processor names a token that it has not told of; not an error that no
    `except Exception` sees, amid the first text."""
    folder = shutil.copytree(TINY, tmp_path / "tiny")
    file = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokens = file["post_processor"]["special_tokens"]
    tokens["other"] = tokens.pop("<|begin_of_text|>")
    (folder / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(ValueError, match=r"tokenizer\.json' is no tokenizer: no entry found"):
        open_checkpoint(folder).tokenizer()
