"""Classes of models with members of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def same_name(base: Any, members: dict[str, Any], make: Callable[[Any], Any]) -> Any:
    """A class derived from a model's, by the same name: transformers knows models by names, and
    `save_pretrained` writes them.

    make: a function of a module, which gives this class for `base`; `pickle` and `copy` find it so.
    """

    def reduce(self: Any, protocol: Any) -> Any:
        _, _, state, *rest = base.__reduce_ex__(self, protocol)
        return _new, (make, base), state, *rest

    names = ("__module__", "__qualname__", "__doc__")
    copied = {each: getattr(base, each) for each in names}
    return type(base)(base.__name__, (base,), {**members, "__reduce_ex__": reduce, **copied})


def _new(make: Callable[[Any], Any], base: Any) -> Any:
    """What `pickle` and `copy` fill in."""
    made = make(base)
    return made.__new__(made)
