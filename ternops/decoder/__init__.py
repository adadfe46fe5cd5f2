"""A minimal decoder, of the architectures in `ternops.decoder.architectures`."""

from ternops.decoder.batch import Batch, RequestError
from ternops.decoder.config import Config
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.model import Model
from ternops.decoder.session import Session

__all__ = ["Batch", "Config", "Model", "RequestError", "Session", "open_checkpoint"]
