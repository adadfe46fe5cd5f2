"""The packages that the layers are for, where they are installed."""

from tests.peers.conftest import torch, transformers

__all__ = ["torch", "transformers"]
