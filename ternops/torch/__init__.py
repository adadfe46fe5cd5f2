"""Ternary layers for PyTorch: trained in floats, run on packed weights.

>>> from ternops.torch import BitLinear, replace_linear, to_ternary
>>> replace_linear(model, BitLinear)   # train it as any other module
>>> to_ternary(model)                  # the same function, on this CPU's kernels

Needs PyTorch (``pip install "ternops[torch]"``); nothing else of ternops imports it.
"""

try:
    import torch as _torch
except ImportError as error:
    raise ImportError('ternops.torch needs PyTorch: pip install "ternops[torch]"') from error

del _torch

from ternops.torch.bitlinear import BitLinear
from ternops.torch.half_linear import HalfLinear
from ternops.torch.linear import TernaryLinear
from ternops.torch.replace import replace_linear, to_ternary
from ternops.torch.transformers import accelerate

__all__ = ["BitLinear", "HalfLinear", "TernaryLinear", "accelerate", "replace_linear", "to_ternary"]
