"""bench.decode end to end on small layouts, and what it says of what it has seen."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pyperf
import pytest

from bench.core.errors import first_line
from bench.core.goals import Goal
from bench.core.process import WorkerError
from bench.core.results import DECODER_FILE
from bench.engines import llama_cpp
from bench.suites.decode import busy as decode_busy
from bench.suites.decode import cases as decode_cases
from bench.suites.decode import command as decode
from bench.suites.decode import deltas as decode_deltas
from bench.suites.decode import embedding as decode_embedding
from bench.suites.decode import peers as decode_peers
from bench.suites.decode import sections as decode_sections
from ternops.decoder import Config
from ternops.decoder.records import PARTS
from ternops.isa import HAS_TILES

SMALL = Config(
    hidden=256, ffn=512, layers=1, heads=4, kv_heads=2, head_dim=64, vocabulary=1000, context=1024,
    activation="relu2", architecture="bitnet",
)  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Every layout is SMALL, and the whole head is larger than any cache."""
    sizes = dict.fromkeys(("125M", "700M", "2B4T", "3B"), SMALL)
    monkeypatch.setattr(decode_sections, "SIZES", sizes)
    monkeypatch.setattr(decode_peers, "SIZES", sizes)
    grouped = dataclasses.replace(SMALL, activation="silu", architecture="qwen3")
    monkeypatch.setattr(decode_sections, "GROUPED", {"Qwen3 8B": grouped})
    hybrid = dataclasses.replace(
        SMALL, layers=2, activation="silu", architecture="qwen3.5", delta_layers=(1, 0),
        delta_heads=4, delta_key_heads=2, delta_key_dim=64, delta_value_dim=64,
    )  # fmt: skip
    monkeypatch.setattr(decode_sections, "HYBRID", {"Qwen3.5 27B": hybrid})
    monkeypatch.setattr(decode_busy, "SIZES", sizes)
    monkeypatch.setattr(decode_deltas, "SIZES", {"7B": SMALL})
    monkeypatch.setattr(decode_embedding, "EMBEDDERS", {"embedding 0.6B": SMALL})
    monkeypatch.setattr(decode_busy, "SECONDS", 0.05)
    monkeypatch.setattr(decode, "_failed", lambda console, found: int(not found))


def run(tmp_path, capsys, *arguments):
    """(exit code, output) of the command."""
    code = decode.main(["--quick", "--output", str(tmp_path), *arguments])
    return code, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("section", [x for x in decode_sections.SECTIONS if x not in decode.PEERS])
def test_a_section_end_to_end(small, tmp_path, capsys, section):
    """It measures, prints what was asked and seen, and writes a suite if it timed anything."""
    code, output = run(tmp_path, capsys, "--only", section, "--threads", "2")
    assert code == 0, output
    assert "Asked / seen" in output
    assert decode_sections.SECTIONS[section].__doc__
    if section != "start":
        suite = pyperf.BenchmarkSuite.load(str(tmp_path / DECODER_FILE))
        assert len(suite) > 1
    if section == "lookup":
        assert "identical output" in output
        assert "OUTPUT DIFFERS" not in output
    if section == "busy":
        assert "decode beside 3 busy, default over the best fixed number" in output
        assert "default: " in output
    if section == "embed":
        assert re.search(r"\d+\.\d\d and \d+\.\d\d texts/s of 128 tokens, 32 texts", output)
    if section == "hybrid":
        assert "0.1 MB of them states, also written; ms a token: " in " ".join(output.split())
    if section == "head":
        assert "of 1000 rows a token rescored" in output


def test_a_token_by_part(small, tmp_path, capsys):
    """Every part in milliseconds; the share section says so in its remarks."""
    decoder = decode_cases.our_decoder(SMALL, decode_cases.DecodeOptions(2, 16, 1))
    decoder()
    words = decoder.breakdown()
    found = dict(re.findall(r"(?:, |: )(\D+) (\d+\.\d+)", words))
    assert tuple(found) == PARTS
    assert sum(map(float, found.values())) > 0
    code, output = run(tmp_path, capsys, "--only", "share", "--threads", "2")
    assert code == 0
    for part in PARTS:
        assert len(re.findall(rf"{part} \d+\.\d", " ".join(output.split()))) >= 2, part


def test_a_missing_llama_cpp_is_a_line(small, tmp_path, capsys, monkeypatch):
    """What compares with it is left out; with nothing else to do that is a failure."""

    def missing():
        raise ImportError("No module named 'llama_cpp'")

    monkeypatch.setattr(llama_cpp, "about", missing)
    code, output = run(tmp_path, capsys, "--only", "peers")
    assert code == 1
    assert "left out" in output
    assert "No module named 'llama_cpp'" in output


class Peer:
    """In the place of llama.cpp, as fast as a token in 10 ms; may die of prompts or of all."""

    remark = "without something"

    def __init__(self, deadly):
        self.deadly = deadly

    def _run(self, what, tokens):
        if what in self.deadly:
            raise WorkerError(f"llama.cpp: killed by signal 11 (SIGSEGV) in {what} {tokens}")
        return tokens / 100

    def wake(self):
        return self._run("decode", 1)

    def generate(self, tokens):
        return self._run("decode", tokens)

    def prompt(self, tokens):
        return self._run("prefill", tokens)


@pytest.mark.slow
@pytest.mark.parametrize("deadly", [(), ("prefill",), ("decode", "prefill")])
@pytest.mark.parametrize("section", decode.PEERS)
def test_a_peer_that_dies_is_a_row_that_says_so(
    small, tmp_path, capsys, monkeypatch, section, deadly
):
    """And what it measures before, and ours, is there."""
    peer = Peer(deadly)
    for module in (decode_cases, decode_peers, decode_sections):
        monkeypatch.setattr(module, "llama", lambda *arguments: (peer, 1.0))
    monkeypatch.setattr(llama_cpp, "about", lambda: ("llama.cpp 0", ""))
    code, output = run(tmp_path, capsys, "--only", section)
    assert code == 0, output
    lines = [line for line in output.splitlines() if line.startswith(("tg 16", "pp 512"))]
    died = ("prefill" if section == "prefill" else "decode") in deadly
    expected = {"peers": 3, "levels": 1, "prefill": 2 if HAS_TILES else 1, "grouped": 2}
    assert len(lines) == expected[section]
    for line in lines:
        assert ("llama.cpp: killed by signal 11 (SIGSEGV) in " in line) == died
        assert ("100.0" in line and "without something" in line) == (not died)
    assert ("not measured" in output) == died
    names = {each.get_name() for each in pyperf.BenchmarkSuite.load(str(tmp_path / DECODER_FILE))}
    assert any("ternops" in name for name in names)
    assert any("llama.cpp" in name for name in names) != died


@pytest.mark.peers
@pytest.mark.parametrize("section", decode.PEERS)
def test_beside_llama_cpp(small, tmp_path, capsys, section):
    """With real files and the real engine."""
    try:
        llama_cpp.about()
    except ImportError as error:
        pytest.skip(first_line(error))
    code, output = run(tmp_path, capsys, "--only", section)
    assert code == 0
    kind = {"grouped": "Q2_0", "levels": "Q4_0"}.get(section, "TQ")
    assert f"over llama.cpp {kind}" in output


def test_a_share_beyond_the_limit_is_a_failure():
    """It means that the probes missed the bandwidth."""
    from rich.console import Console

    for seen, code in ((0.95, 0), (1.2, 1)):
        found = [Goal("share", "700M", 0.9, seen, "%")]
        assert decode._failed(Console(quiet=True), found) == code
    differs = Goal("lookup", "tiny", 1.3, 0.0, "x", "OUTPUT DIFFERS")
    assert decode._failed(Console(quiet=True), [differs]) == 1


@pytest.mark.parametrize(
    ("unit", "asked", "seen", "passed", "words"),
    [
        ("x", 2.5, 2.6, True, (">= 2.5x", "2.60x", "pass")),
        ("x", 2.5, 2.4, False, (">= 2.5x", "2.40x", "MISSED")),
        ("%", 0.9, 0.91, True, (">= 90%", "91.0%", "pass")),
        (" s", 3.0, 2.9, True, ("<= 3 s", "2.90 s", "pass")),
        (" s", 3.0, 3.1, False, ("<= 3 s", "3.10 s", "MISSED")),
        (" us", 5e-6, 4e-6, True, ("<= 5 us", "4.00 us", "pass")),
        ("x", 2.5, math.nan, False, (">= 2.5x", "-", "not measured")),
    ],
)
def test_figures(unit, asked, seen, passed, words):
    """Shares and ratios are to be at least, times at most."""
    figure = Goal("section", "what", asked, seen, unit)
    assert figure.passed == passed
    assert figure.words == words


def test_gaussian_rows_do_not_repeat():
    """The head's candidates depend on it."""
    dense = decode_cases.gaussian(SMALL).head.to_dense()
    assert len(np.unique(dense, axis=0)) == 1000
    assert abs(dense.std() * 16 - 1) < 0.01


def test_the_lookup_text_is_code():
    """It repeats itself, as accessors do, and fits the tiny checkpoint's context."""
    tokens = decode_cases.lookup_prompt()
    assert 100 < len(tokens) < 385
