"""A minimal decoder: BitNet b1.58 2B4T's architecture and the plain LLaMA layout."""

from ternops.decoder.batch import Batch
from ternops.decoder.config import Config
from ternops.decoder.model import Model

__all__ = ["Batch", "Config", "Model"]
