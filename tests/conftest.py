"""Fixtures of the whole suite."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Before anything asks for a kernel, here or in a process of a test: what this machine was tuned for
# changes no result, but tests of the defaults mean the tables'.
os.environ["TERNOPS_TUNING"] = "off"
# No test may depend on a network, nor wait for one.
os.environ["HF_HUB_OFFLINE"] = "1"
# Workers of pytest-xdist have a CPU each, and NumPy's threads would wait for one another.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from tests.helpers import internals

#: Folders whose tests all need peers (`tests/library/test_layers.py`).
OF_PEERS = tuple(Path(__file__).with_name(name) for name in ("peers", "torch_layers"))
#: Characters of a parameter that stand in the name of its test.
MAX_NAME = 80


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start.

    A shell has what it runs in the background ignore it, and that is inherited.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what is left out whole: torch and transformers take ten seconds."""
    is_left_out = "not peers" in config.option.markexpr
    return True if is_left_out and collection_path in OF_PEERS else None


def pytest_make_parametrize_id(val: object) -> str | None:
    """A name that fits into a line: some parameters are megabytes, and names are sent around."""
    if isinstance(val, str | bytes) and len(val) > MAX_NAME:
        return f"{val[:MAX_NAME]!a}... of {len(val)}"
    return None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Share tests out by their files, but for what names a group of its own: that comes first,
    because it takes long, and what comes last keeps one worker alone."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            place = item.path.relative_to(config.rootpath)
            item.add_marker(pytest.mark.xdist_group(place.as_posix()))


def pytest_collection_finish() -> None:
    """Spare garbage collections what was imported and collected: some tests ask for many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def llama_cpp_without_amx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp rearranges weights for AMX, and crashes on matrices as small as those of tests."""
    if request.node.get_closest_marker("peers") is None or find_spec("llama_cpp") is None:
        return
    import llama_cpp

    original = llama_cpp.llama_model_default_params

    def parameters() -> Any:
        found = original()
        found.use_extra_bufts = False
        return found

    for module in (llama_cpp, llama_cpp.llama_cpp):
        monkeypatch.setattr(module, "llama_model_default_params", parameters)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Use as many threads as are asked for, however little there is to do."""
    with internals.eager_threads():
        yield
