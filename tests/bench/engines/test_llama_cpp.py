"""llama.cpp as a peer in decoding: it loads random files, keeps to the context, lets go of all."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bench.engines import llama_cpp
from bench.models.random_gguf import HEAD_TYPES, LINEAR_TYPES, for_llama_cpp, random_gguf
from ternops.cost.layouts import SIZES
from ternops.decoder import Config

pytestmark = pytest.mark.peers

package = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed (the extra named peers)"
)

TINY = Config(
    hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=320, context=1024
)


def _logits(decoder):
    """Of the last token."""
    pointer = package.llama_get_logits_ith(decoder._context, -1)
    return np.ctypeslib.as_array(pointer, (TINY.vocabulary,)).copy()


def _last_position(decoder):
    return package.llama_memory_seq_pos_max(package.llama_get_memory(decoder._context), 0)


@pytest.mark.parametrize("head", HEAD_TYPES)
@pytest.mark.parametrize("linear", LINEAR_TYPES)
def test_prompt_and_generation_end_in_the_same_logits(tmp_path, linear, head):
    """They feed the same tokens; activations of 8 bits round a little differently in batches."""
    with (
        random_gguf(tmp_path, TINY, linear, head) as path,
        closing(llama_cpp.LlamaDecoder(path, 2, 64)) as decoder,
    ):
        assert decoder.prompt(20) > 0
        together = _logits(decoder)
        assert decoder.generate(20) > 0
        apart = _logits(decoder)
        assert path.stat().st_size > decoder.nbytes > 0.9 * path.stat().st_size
    assert np.isfinite(together).all()
    assert np.abs(together - apart).max() < 0.05 * together.std()


def test_each_run_starts_from_an_empty_context(tmp_path):
    with (
        random_gguf(tmp_path, TINY, "tq2_0", "f16") as path,
        closing(llama_cpp.LlamaDecoder(path, 1, 768)) as decoder,
    ):
        for tokens in (768, 768, 600, 1):
            decoder.prompt(tokens)
            assert _last_position(decoder) == tokens - 1
        for tokens in (40, 3):
            decoder.generate(tokens)
            assert _last_position(decoder) == tokens - 1


def test_layouts_that_are_rounded_are_accepted(tmp_path):
    """Of the 3B layout, one layer: heads of 100 and of 104."""
    one_layer = Config(**{**SIZES["3B"].__dict__, "layers": 1, "vocabulary": 321})
    for linear, head in (("tq1_0", "f16"), ("q4_0", "q6_k"), ("f16", "q8_0")):
        config, _ = for_llama_cpp(one_layer, linear, head)
        with (
            random_gguf(tmp_path, config, linear, head) as path,
            closing(llama_cpp.LlamaDecoder(path, 2, 32)) as decoder,
        ):
            decoder.prompt(8)
            assert np.isfinite(_logits(decoder)).all()


def test_close_lets_go_of_the_file(tmp_path):
    """It is mapped into memory as long as it is loaded."""
    maps = Path("/proc/self/maps")
    with random_gguf(tmp_path, TINY, "tq1_0", "f16") as path:
        with closing(llama_cpp.LlamaDecoder(path, 1, 32)) as decoder:
            assert str(path) in maps.read_text()
        assert str(path) not in maps.read_text()
        with pytest.raises(AttributeError):
            decoder.generate(1)


def test_bad_arguments(tmp_path, capfd):
    """One line each, and nothing from llama.cpp itself."""
    damaged = tmp_path / "damaged.gguf"
    with random_gguf(tmp_path, TINY, "tq1_0", "f16") as path:
        damaged.write_bytes(path.read_bytes()[:-1000])
        for threads, context in ((0, 32), (513, 32), (1, 0), (1, 1025)):
            with pytest.raises(ValueError, match=r"^(threads|context): \d+, expected 1 to \d+$"):
                llama_cpp.LlamaDecoder(path, threads, context)
        with closing(llama_cpp.LlamaDecoder(path, 1, 32)) as decoder:
            for tokens in (0, 33):
                for run in (decoder.prompt, decoder.generate):
                    with pytest.raises(ValueError, match=r"^tokens: \d+, expected 1 to 32$"):
                        run(tokens)
    for file in (damaged, tmp_path / "missing.gguf"):
        with pytest.raises(ValueError, match=r"^llama\.cpp does not load '.*': .+$") as caught:
            llama_cpp.LlamaDecoder(file, 1, 32)
        assert "it does not say why" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_no_memory_for_the_context(tmp_path, monkeypatch):
    """The model, loaded before, is let go of."""
    monkeypatch.setattr(package, "llama_init_from_model", lambda model, parameters: None)
    with random_gguf(tmp_path, TINY, "tq1_0", "f16") as path:
        with pytest.raises(RuntimeError, match=r"^llama\.cpp has no context of 32 tokens: "):
            llama_cpp.LlamaDecoder(path, 1, 32)
        assert str(path) not in Path("/proc/self/maps").read_text()


def test_the_build_is_named():
    version, remark = llama_cpp.about()
    assert version.startswith(f"llama.cpp of llama-cpp-python {package.__version__}, ggml ")
    assert "libggml-cpu" in version
    assert "\n" not in version + remark
