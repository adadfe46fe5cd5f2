"""Text from tokens as they come is the text of all of them, whatever they are."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel

from ternops.decoder.formats.loading import TINY
from ternops.decoder.text import load_tokenizer
from tests.helpers.texts import pieces_of, text_of

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_WORDS = [
    "\u2581", "\u2581\u2581", "\u2581a", "a", "\u2581é", "😀", "\ufffd", "", "##s", "##", ".", "'",
    "n't", "a</w>", " ", "x", "<0xZZ>",
]  # fmt: skip
#: Of byte-level vocabularies: 0xFF, halves of é, of an emoji, of U+FFFD, a word of two bytes' ends.
_HALVES = [
    "Ġ",
    "Ċ",
    "a",
    "ÿ",
    "Ã",
    "©",
    "ðŁ",
    "ĺ",
    "Ģ",
    "ðŁĺĢ",
    "ï¿½",
    "ï¿",
    "½",
    "©a",
    "aÃ",
    "",
    "é漢",
]


def _tokenizer(words, decoder):
    found = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[0]))
    if decoder is not None:
        found.decoder = decoder
    found.add_special_tokens(["<s>"])
    found.add_tokens(["<added>", " b"])
    return found


def _sentence_piece(*more):
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *more]
    return _tokenizer(_BYTES + _WORDS, decoders.Sequence(steps))


TOKENIZERS = {
    "tiny": load_tokenizer(TINY),
    "byte level": _tokenizer(_HALVES, decoders.ByteLevel()),
    "LLaMA 2": _sentence_piece(decoders.Strip(" ", 1, 0)),
    "two blanks": _sentence_piece(decoders.Strip(" ", 2, 0)),
    "Gemma": _sentence_piece(),
    "Metaspace": _tokenizer(_WORDS, decoders.Metaspace()),
    "WordPiece": _tokenizer(_WORDS, decoders.WordPiece()),
    "none": _tokenizer(_WORDS, None),
    "not by the token before": _tokenizer(_WORDS, decoders.CTC()),
    "by words": _tokenizer(_WORDS, decoders.BPEDecoder()),
    "replaced at last": _tokenizer(
        _WORDS, decoders.Sequence([decoders.Fuse(), decoders.Replace("aa", "x")])
    ),
}


def _tokens(tokenizer):
    """Sequences of all tokens, some outside the vocabulary, and of few that come often."""
    size = tokenizer.get_vocab_size()
    few = st.lists(st.integers(0, size + 1), min_size=1, max_size=3)
    return st.lists(st.integers(0, size + 1), max_size=20) | few.flatmap(
        lambda chosen: st.lists(st.sampled_from(chosen), max_size=20)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stream_is_what_decode_makes_of_all(name):
    """Of any tokens, in whole characters; after a prompt, what they add to its text."""
    tokenizer = TOKENIZERS[name]

    @settings(max_examples=200, deadline=None)
    @given(_tokens(tokenizer), _tokens(tokenizer))
    def check(tokens, prompt):
        assert text_of(tokenizer, tokens) == tokenizer.decode(tokens)
        before, both = tokenizer.decode(prompt), tokenizer.decode(prompt + tokens)
        if not before.endswith("\ufffd"):  # else a prompt that ends in a character
            assert text_of(tokenizer, tokens, prompt) == both[len(before) :]

    check()


def _ids(tokenizer, words):
    return [tokenizer.token_to_id(word) for word in words]


@pytest.mark.parametrize(
    ("name", "words", "pieces"),
    [
        ("byte level", ["a", "ðŁ", "ĺ", "Ģ", "a"], ["a", "😀", "a"]),
        ("byte level", ["aÃ", "©a", "Ã"], ["a", "éa", "\ufffd"]),
        ("byte level", ["ÿ", "ÿ", "a"], ["\ufffd", "\ufffda"]),
        ("LLaMA 2", ["\u2581a", "\u2581a"], ["a", " a"]),
        ("LLaMA 2", ["\u2581", "\u2581a"], [" a"]),
        ("LLaMA 2", ["<0x0A>", "<0xF0>", "x", "x"], ["\ufffd\ufffdx", "x"]),
        ("LLaMA 2", ["<0xC3>", "<0xA9>", "<s>", "x", "<0x0A>"], ["éx", "\n"]),
        ("LLaMA 2", ["<0xC3>", "<s>", "<0xA9>"], ["é"]),
        ("WordPiece", ["a", "##s", ".", "a"], ["a", "s", ".", " a"]),
        ("by words", ["a</w>", "x"], ["a x"]),
    ],
)
def test_the_pieces_of_a_stream(name, words, pieces):
    """As soon as characters are whole, runs of byte tokens as soon as they end."""
    tokenizer = TOKENIZERS[name]
    assert pieces_of(tokenizer, _ids(tokenizer, words)) == pieces


def test_a_continuation_keeps_its_blank():
    """A decoder that strips what all text begins with does not strip what goes on."""
    tokenizer = TOKENIZERS["LLaMA 2"]
    prompt, more = _ids(tokenizer, ["<s>", "\u2581a"]), _ids(tokenizer, ["\u2581a", "\u2581é"])
    assert pieces_of(tokenizer, more, prompt) == [" a", " é"]
    assert pieces_of(tokenizer, more, prompt[:1]) == ["a", " é"]


@pytest.mark.parametrize(
    ("name", "word"),
    [("tiny", "a"), ("byte level", "ÿ"), ("byte level", "ï¿½"), ("byte level", ""),
     ("LLaMA 2", "\u2581"), ("LLaMA 2", "<0xF0>"), ("LLaMA 2", ""), ("WordPiece", "##")],
)  # fmt: skip
def test_a_token_costs_the_same_at_the_end(name, word):
    """No text is decoded anew for each token."""
    tokenizer = TOKENIZERS[name]
    tokens = _ids(tokenizer, [word]) * 20_000
    start = time.perf_counter()
    text = text_of(tokenizer, tokens)
    assert time.perf_counter() - start < 10  # 0.2 s; minutes where it grows
    assert text == tokenizer.decode(tokens)
