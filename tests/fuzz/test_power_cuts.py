"""Every writer of the package, cut off at every byte of what it writes, or at some of them."""

from __future__ import annotations

import json
import os
import sys
import tomllib

import pytest

import ternops
from ternops.cost import profile
from ternops.decoder import Model, Session, open_checkpoint
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_stack import stack_model
from ternops.decoder.formats.delta_file import write_delta
from ternops.decoder.session_file import save_session
from ternops.tuning import report
from tests.fuzz import power_cuts
from tests.helpers import cases, checkpoints, small_models

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
#: Bytes between two cuts where there are many.
STEP = 97
#: How many times as far apart they are without the mark "tiers": each is a process.
COARSE = 23


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a small model."""
    return checkpoints.write(tmp_path_factory.mktemp("source") / "model")


def writers(source):
    """Name -> (of an older file, of the new one, bytes between two cuts)."""
    small = [ternops.pack(cases.trits(3, size), cases.scales(3)["rows"]) for size in (9, 12)]
    stacks = [ternops.stack(cases.floats(4, size), blocks=1, rank=1) for size in (6, 8)]
    config = small_models.small_config("hidden 1", "llama")
    weights = small_models.small_model(config, threads=1).weights
    deltas = [small_models.small_delta(weights, seed) for seed in (0, 1)]
    sessions = []
    for tokens in ([1], [1, 2, 3]):
        sessions.append(Session(Model(weights, threads=1)))
        sessions[-1].extend(tokens, 1)
    table = tomllib.loads(next(iter(profile.shipped().values())).read_text())
    return {
        "a matrix": (small[0].save, small[1].save, 1),
        "a stack": (stacks[0].save, stacks[1].save, 1),
        "a delta": (
            lambda path: write_delta(path, config, deltas[0]),
            lambda path: write_delta(path, config, deltas[1]), 7,
        ),
        "a chat": (
            lambda path: save_session(sessions[0], path),
            lambda path: save_session(sessions[1], path, [{"role": "user", "content": "a"}]), 31,
        ),
        "tuning": (
            lambda path: report.write(path, [], {}, 1.0, []),
            lambda path: report.write(path, [], {}, 2.5, []), 1,
        ),
        "a machine": (
            lambda path: profile.save(table, path),
            lambda path: profile.save({**table, "name": "another"}, path), 5,
        ),
        "a packed model": (
            lambda path: path.write_bytes(b"old"),
            lambda path: convert(source, path, "two_bit"), STEP,
        ),
        "a stacked model": (
            lambda path: path.write_bytes(b"old"),
            lambda path: stack_model(open_checkpoint(source), source, path), 120 * STEP,
        ),
    }  # fmt: skip


def content(data):
    """What a file says: safetensors writes the entries of its header in any order."""
    size = int.from_bytes(data[:8], "little")
    try:
        return json.loads(data[8 : 8 + size]), data[8 + size :]
    except ValueError:
        return data


NAMES = ("a matrix", "a stack", "a delta", "a chat", "tuning", "a machine", "a packed model",
         "a stacked model")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coarse", [COARSE, pytest.param(1, marks=pytest.mark.tiers)])
def test_the_old_file_or_the_new_one(source, tmp_path, name, coarse):
    """At each byte; and what was left behind does not keep the next one from being written."""
    write_old, write_new, step = writers(source)[name]
    path, other = tmp_path / "here" / "file", tmp_path / "there" / "file"
    for each in (path, other):
        each.parent.mkdir()
    with power_cuts.only_synced_files_replace() as replaced:
        write_new(other)
    assert replaced[-1] == str(other)
    new = content(other.read_bytes())
    write_old(path)
    old = content(path.read_bytes())
    assert old != new
    for most, found in power_cuts.states(write_new, path, step * coarse):
        assert content(found) in (old, new), f"a third file at {most} bytes"
    assert content(path.read_bytes()) == new
    write_old(path)
    write_new(path)
    assert content(path.read_bytes()) == new


def test_what_is_not_synced_is_noticed(tmp_path):
    """So that the test above can fail."""
    (tmp_path / "a").write_bytes(b"x")
    with (
        power_cuts.only_synced_files_replace(),
        pytest.raises(AssertionError, match="after it was synced"),
    ):
        os.replace(tmp_path / "a", tmp_path / "b")
