"""Compiling ahead: what "auto" may choose, and nothing is compiled in a product afterwards."""

from __future__ import annotations

import pytest

from tests.helpers import processes


@pytest.mark.slow
def test_nothing_is_left_to_compile():
    """For products of any number of tokens, and for a model; one line on stderr says so."""
    for decoder in (False, True):
        done = processes.program("warmup", *["--decoder"] * decoder)
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("ternops: compiling for ")
        assert line.endswith(" s")
