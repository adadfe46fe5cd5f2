"""examples/short: each runs, and docs/EXAMPLES.md shows its code and what it prints."""

from __future__ import annotations

import runpy

import pytest

from tests.helpers import processes

DOCS = processes.ROOT / "docs"
WRITER = runpy.run_path(str(DOCS / "examples.py"))
PAGE = (DOCS / "EXAMPLES.md").read_text("utf-8")
NAMES = [
    pytest.param(name, marks=[pytest.mark.peers] if name == "layers" else [])
    for name in WRITER["TITLES"]
]
#: Beside ternops: extra or package of an example.
NEEDED = {"generate": "tokenizers", "server": "uvicorn", "solver": "scipy", "layers": "torch"}


def test_all_are_on_the_page():
    """And there are six that need no PyTorch."""
    files = {path.stem for path in WRITER["FOLDER"].glob("*.py")}
    assert files == set(WRITER["TITLES"])
    assert len(files - {"layers"}) == 6


@pytest.mark.parametrize("name", NAMES)
def test_an_example(name, monkeypatch):
    """As the page is written by `python docs/examples.py`."""
    if name in NEEDED:
        pytest.importorskip(NEEDED[name], reason=f"{NEEDED[name]} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(processes.ROOT))
    assert WRITER["section"](name, WRITER["output"](name)) in PAGE
