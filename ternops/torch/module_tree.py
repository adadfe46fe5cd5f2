"""What a module consisted of when somebody looked, and whether that is still so."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

#: Hooks of this module do nothing unless outputs of layers are asked for.
_CAPTURING = "transformers.utils.output_capturing"
#: Plain attributes that forwards of attention, norms and rotations read.
_ATTRIBUTES = (
    "attention_dropout", "attention_scaling", "eps", "is_causal", "layer_idx", "scaling",
    "variance_epsilon",
)  # fmt: skip
_ABSENT = object()


class ModuleTree:
    """The modules below one, their parameters and buffers: the objects, not their values; and what
    plain attributes say, those of _ATTRIBUTES.

    It is asked for each token, so that it looks at dictionaries, those that hold any, and not at
    modules. It holds none of the module itself, which may have it among its own attributes.
    """

    def __init__(self, root: nn.Module) -> None:
        below = [each for each in root.modules() if each is not root]
        tables = [(m._modules, m._parameters, m._buffers) for m in (root, *below)]
        self._tables: list[dict[str, Any]] = [each for of_one in tables for each in of_one if each]
        self._values = self._found()
        self._hooks = [each for m in below for each in (m._forward_hooks, m._forward_pre_hooks)]
        self._attributes = [each.__dict__ for each in below]
        read = [(m.__dict__, name) for m in below for name in _ATTRIBUTES if hasattr(m, name)]
        self._owners, self._names = [of for of, _ in read], [name for _, name in read]
        self._said = self._says()

    def _says(self) -> list[Any]:
        return list(map(dict.get, self._owners, self._names, itertools.repeat(_ABSENT)))

    def _found(self) -> list[Any]:
        return list(itertools.chain.from_iterable(map(dict.values, self._tables)))

    def is_same(self) -> bool:
        """Whether all of them are the same objects."""
        found = self._found()
        return (
            len(found) == len(self._values)
            and all(map(operator.is_, found, self._values))
            and all(map(operator.is_, self._says(), self._said))
        )

    def is_plain(self) -> bool:
        """Whether the modules below do what their classes say: nobody is told of their inputs and
        outputs or has replaced their forward."""
        if any(self._hooks) and not all(map(_captures, _values_of(self._hooks))):
            return False
        if torch_module._has_any_global_hook():
            return False
        return not any("forward" in each for each in self._attributes)


def _values_of(tables: Iterable[dict[Any, Any]]) -> Iterable[Any]:
    return itertools.chain.from_iterable(each.values() for each in tables)


def _captures(hook: Any) -> bool:
    return getattr(hook, "__module__", None) == _CAPTURING
