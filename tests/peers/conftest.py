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


@pytest.fixture(scope="module")
def in_double(torch):
    """A mode in which transformers computes in float64 what it always computes in float32."""

    class InDouble(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            def wide(value):
                return torch.float64 if value is torch.float32 else value

            if function is torch.Tensor.float:
                function = torch.Tensor.double
            kwargs = {key: wide(value) for key, value in (kwargs or {}).items()}
            return function(*map(wide, args), **kwargs)

    return InDouble
