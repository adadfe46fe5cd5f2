"""What files recommend of sampling, kept by the files that are made of them."""

from __future__ import annotations

import json

import pytest

from ternops.decoder import open_checkpoint
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.loading import TINY
from ternops.decoder.sampling import Sampling

RECOMMENDED = {
    "temperature": 0.6,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
}


@pytest.fixture
def folder(tmp_path):
    """The tiny checkpoint, to be given a generation_config.json."""
    made = tmp_path / "model"
    made.mkdir()
    for path in TINY.iterdir():
        (made / path.name).symlink_to(path)
    (made / "generation_config.json").unlink(missing_ok=True)
    return made


def write(folder, **settings):
    (folder / "generation_config.json").write_text(json.dumps(settings))


def test_a_folder_a_packed_file_and_gguf_say_the_same(folder, tmp_path):
    """GGUF has floats of 32 bits, which are 0.9 all the same."""
    write(folder, do_sample=True, eos_token_id=0, **RECOMMENDED)
    convert(folder, tmp_path / "a.safetensors")
    convert_to_gguf(folder, tmp_path / "a.gguf", "two_bit")
    for path in (folder, tmp_path / "a.safetensors", tmp_path / "a.gguf"):
        assert open_checkpoint(path).sampling() == Sampling(**RECOMMENDED)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}), ({"temperature": 0.6, "top_p": 0.9}, {}),
        ({"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.2},
         {"repetition_penalty": 1.2}),
        ({"do_sample": True}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": True, "temperature": 0.6, "top_k": None}, {"temperature": 0.6, "top_k": 50}),
        ({"do_sample": True, "top_k": 0}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": None, "top_k": -1}, {"temperature": 1.0}),
    ],
)  # fmt: skip
def test_what_transformers_makes_of_it(folder, settings, expected):
    """Greedy unless do_sample is true, and then of the 50 likeliest unless top_k is another."""
    write(folder, **settings)
    assert open_checkpoint(folder).sampling() == Sampling(**expected)


def test_nothing_is_recommended_without_a_file(folder, tmp_path):
    """Nor does a file then hold anything of it."""
    convert(folder, tmp_path / "a.safetensors")
    for path in (folder, tmp_path / "a.safetensors"):
        assert open_checkpoint(path).sampling() == Sampling()
    assert b'"sampling"' not in (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"top_p": 3}, "top_p=3"), ({"temperature": "hot"}, "temperature='hot'"),
     ({"top_k": 1.5}, "top_k=1.5")],
)  # fmt: skip
def test_a_bad_setting_names_the_file(folder, settings, words):
    write(folder, do_sample=True, **settings)
    with pytest.raises(ValueError, match=rf"generation_config.json': {words}"):
        open_checkpoint(folder).sampling()
