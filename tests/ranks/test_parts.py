"""Processes that have a part of a model each, in folders of their own: the bits of the whole file,
and one line where the parts do not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ternops.decoder.formats.convert_parts import convert_parts
from ternops.decoder.formats.loading import TINY
from ternops.decoder.formats.part_file import part_name
from tests.helpers.processes import environment
from tests.helpers.rank_cases import MPIEXEC, mpiexec
from tests.helpers.trained import FOLDER

pytestmark = pytest.mark.mpi
WORDS = ("generate", "--prompt", "def one", "--json", "--max-new-tokens", "12")


def together(folders, *arguments):
    """Each process in a folder of its own, as on hosts that share none."""
    words = [MPIEXEC]
    for folder in folders:
        words += ["-wdir", str(folder), "-n", "1", sys.executable, "-m", "ternops", *arguments, ":"]
    return subprocess.run(
        words[:-1], capture_output=True, text=True, timeout=120, env=environment(), check=False
    )


def hosts(tmp_path, source, count, layout=None, encoding="base3"):
    """As many folders as processes, in each of which `model` holds one part."""
    parts = tmp_path / "parts"
    convert_parts(source, parts, count, encoding, layout)
    for rank in range(count):
        place = tmp_path / f"host{rank}" / "model"
        place.mkdir(parents=True)
        shutil.copy(parts / part_name(rank, count), place)
    return [tmp_path / f"host{rank}" for rank in range(count)]


def one_line(done):
    """What is said, of all processes."""
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1, done.stderr
    return errors[0]


@pytest.mark.parametrize(
    ("source", "count", "layout", "encoding"),
    [(TINY, 2, None, "base3"), (TINY, 3, "pp=3", "two_bit"), (FOLDER, 4, "tp=2,pp=2", "two_bit")],
)
def test_the_tokens_and_the_perplexity_of_the_whole(tmp_path, source, count, layout, encoding):
    """All digits of a logarithm of probabilities, too."""
    places = hosts(tmp_path, source, count, layout, encoding)
    text = tmp_path / "text"
    text.write_text("def one(two):\n    return three\n" * 9)
    told = []
    for command in (WORDS, ("perplexity", "--text", str(text), "--context", "100")):
        alone = mpiexec(1, ["-m", "ternops", *command, "--model", str(source)])
        found = together(places, *command, "--model", "model")
        assert found.returncode == 0, found.stderr
        told.append((alone.stdout, found.stdout))
    tokens = [json.loads(each)["tokens"] for each in told[0]]
    assert tokens[0] == tokens[1] != []
    lines = [each.splitlines()[0] for each in told[1]]
    assert lines[0] == lines[1]


def test_a_folder_that_all_share(tmp_path):
    """Each process takes its part of it; a layout may be given that is that of the parts."""
    folder = tmp_path / "parts"
    convert_parts(TINY, folder, 2, "base3", "pp=2")
    for more in ([], ["--layout", "pp=2"]):
        done = mpiexec(2, ["-m", "ternops", *WORDS, "--model", str(folder), *more])
        assert done.returncode == 0, done.stderr
    done = mpiexec(2, ["-m", "ternops", *WORDS, "--model", str(folder), "--layout", "tp=2"])
    assert "layout 'tp=2': expected 'pp=2', as the parts of the model are" in one_line(done)
    done = mpiexec(3, ["-m", "ternops", *WORDS, "--model", str(folder)])
    assert "expected 2 processes, started by mpirun -n 2, not 3" in one_line(done)
    done = mpiexec(1, ["-m", "ternops", *WORDS, "--model", str(folder)])
    assert "is part 1 of 2 (pp=2): expected 2 processes" in one_line(done)
    path = str(folder / part_name(0, 2))
    done = mpiexec(2, ["-m", "ternops", *WORDS, "--model", path])
    assert "rank 1 on " in (line := one_line(done))
    assert "is part 1 of 2 (pp=2), found rank 1 of 2" in line


def test_a_part_that_is_missing_or_of_another_model(tmp_path):
    """Says which process lacks it, or has another digest."""
    places = hosts(tmp_path, TINY, 2)
    own = Path(places[1], "model", part_name(1, 2))
    own.rename(own.with_name(part_name(0, 2)))
    line = one_line(together(places, *WORDS, "--model", "model"))
    assert "rank 1 on " in line
    assert f"holds {part_name(0, 2)}, and not {part_name(1, 2)}, which rank 1 reads" in line
    own.with_name(part_name(0, 2)).unlink()
    convert_parts(TINY, tmp_path / "other", 2, "two_bit")
    shutil.copy(tmp_path / "other" / own.name, own)
    line = one_line(together(places, *WORDS, "--model", "model"))
    assert "rank 1 on " in line
    assert "digest of the model's parts is " in line
