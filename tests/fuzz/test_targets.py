"""What was found once is mended, and a short attack on every target finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import targets
from tests.fuzz.mutations import of_bytes, of_json, of_safetensors
from tests.fuzz.target import Finding, Refused, in_one_line
from tests.helpers import processes

FINDINGS = Path(__file__).with_name("findings")
#: Inputs of a target that the suite tries.
INPUTS = 150
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux"),
    pytest.mark.xdist_group("fuzz"),
]


def attack(name, folder, *options):
    """The counts of a child."""
    done = processes.python("-m", "tests.fuzz.child", name, str(folder), "--by-chance", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    told = "\n".join(path.read_text() for path in folder.glob("*.txt"))
    return json.loads((folder / "counts.json").read_text()), told


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.MODULES)
def test_a_short_attack(name, tmp_path):
    """The same inputs each time: no crash, no hang, no error but in a line."""
    counts, told = attack(name, tmp_path, "--inputs", str(INPUTS), "--seed", "1")
    assert counts["findings"] == 0, told
    assert counts["inputs"] >= INPUTS
    assert counts["accepted"] > 0


@pytest.mark.parametrize("name", sorted(path.name for path in FINDINGS.iterdir()))
def test_what_was_found(name, tmp_path):
    """Each input that was a finding once."""
    paths = sorted(map(str, (FINDINGS / name).iterdir()))
    counts, told = attack(name, tmp_path, "--only", *paths)
    assert counts["findings"] == 0, told
    assert counts["inputs"] == len(paths)


def test_a_finding_is_told(tmp_path, monkeypatch):
    """A child that finds something, and one that ends."""
    broken = "import os\nfrom tests.fuzz.targets import texts\n"
    for effect, words in (
        ("1 / 0", "ZeroDivisionError"), ("b'x' * (64 << 20)", "TooMuch"), ("os._exit(3)", ""),
    ):  # fmt: skip
        code = (
            f"{broken}def check(data):\n    {effect}\n"
            "import runpy, sys\n"
            "texts.TARGETS['prompt'] = texts.TARGETS['prompt']._replace(check=check)\n"
            f"sys.argv = ['x', 'prompt', {str(tmp_path / words)!r}, '--by-chance', '--inputs', '5',"
            "'--only', __file__ if 0 else sys.executable]\n"
            "runpy.run_module('tests.fuzz.child', run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=processes.ROOT, env=processes.environment(),
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        if words:
            assert json.loads((tmp_path / words / "counts.json").read_text())["findings"] == 1
            assert words in "".join(path.read_text() for path in (tmp_path / words).glob("*.txt"))
        else:
            assert done.returncode == 3


def test_a_large_matrix_takes_twice_its_file_at_most():
    """Whole, cut off, and with a header that says anything: 16 MB of weights, and 4 MB beside."""
    code = (
        "import json, random, tempfile\nfrom pathlib import Path\nimport numpy as np, ternops\n"
        "from tests.fuzz.child import resident\nfrom tests.fuzz.mutations import of_safetensors\n"
        "path = Path(tempfile.mkdtemp(), 'matrix')\n"
        "ternops.pack(np.zeros((4096, 1 << 14), np.int8), encoding='two_bit').save(path)\n"
        "whole, numbers, most, opened = path.read_bytes(), random.Random(1), 0, 0\n"
        "damaged = of_safetensors()\n"
        "for number in range(60):\n"
        "    data = damaged(whole, numbers) if number else whole\n"
        "    path.write_bytes(data)\n"
        "    before = resident('VmRSS', anew=True)\n"
        "    try:\n"
        "        ternops.load(path)\n"
        "        opened += 1\n"
        "    except ValueError:\n"
        "        pass\n"
        "    most = max(most, resident('VmHWM') - before - 2 * len(data))\n"
        "path.unlink()\nprint(json.dumps([most, opened]))"
    )
    most, opened = json.loads(processes.run_code(code))
    assert most < 4 << 20
    assert 0 < opened < 60


def test_errors_of_several_lines_are_findings():
    for error in (ValueError("a\nb"), ValueError(""), ValueError("x" * 2000), UnicodeError("a")):
        with pytest.raises(Finding), in_one_line():
            raise error
    with pytest.raises(Refused), in_one_line():
        raise ValueError("a line")


@pytest.mark.parametrize("mutate", [of_bytes, of_json, of_safetensors()])
def test_mutations_are_told_by_their_seed(mutate):
    """So that a run can be repeated; and they do change something."""
    import random

    seed = (64).to_bytes(8, "little") + b'{"a": {"dtype": "U8", "shape": [1]}}'.ljust(64) + b"x"
    made = [[mutate(seed, random.Random(number)) for number in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 25


def test_the_table():
    """Of the counts that are kept, as docs/RELIABILITY.md shows it."""
    kept = json.loads(fuzz.COUNTS.read_text())
    text = (processes.ROOT / "docs" / "RELIABILITY.md").read_text("utf-8")
    assert fuzz.table(kept) in text
    assert set(kept) == set(targets.MODULES)
