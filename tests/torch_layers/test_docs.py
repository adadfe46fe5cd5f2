"""What docs/TORCH.md shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.peers

TEXT = Path(__file__).parents[2] / "docs" / "TORCH.md"


def test_the_examples_run(torch, transformers, tmp_path, monkeypatch):
    """One after another, as they stand there."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT.read_text("utf-8"), re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(TEXT), "exec"), names)
    assert len(blocks) == 2
    assert names["y"].shape == (1, 10)
    assert (tmp_path / "accelerated" / "model.safetensors").stat().st_size
