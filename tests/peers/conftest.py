"""The packages that ternops is compared with, where they are installed."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed (make test-peers)")


@pytest.fixture(scope="module")
def transformers(torch):
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (make test-peers)"
    )
    pytest.importorskip("accelerate", reason="accelerate is not installed (make test-peers)")
    transformers.utils.logging.disable_progress_bar()
    # It compiles its BitNet layers when they first run, with a C++ compiler that need not be there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("torch._dynamo").config, "disable", True)
        yield transformers
