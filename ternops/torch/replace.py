"""Layers of any module replaced in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import nn

from ternops.torch.bitlinear import BitLinear
from ternops.torch.linear import TernaryLinear

_Module = TypeVar("_Module", bound=nn.Module)


def replace_linear(
    model: _Module,
    layer: type[BitLinear] | type[TernaryLinear] = BitLinear,
    keep: Sequence[str] = ("lm_head",),
    **settings: Any,
) -> _Module:
    """Put a layer in the place of every `torch.nn.Linear` of a module, and return the module.

    layer: BitLinear or TernaryLinear; settings: of its `from_linear`. keep: names that stay as they
    are, with what is below them: whole ones, or parts of them between points.

    Layers that derive from `torch.nn.Linear` stay, too. Raises TypeError and ValueError, naming the
    layer, for one that cannot be replaced, also for one whose weights another module has (a tied
    head); the model is then as it was.
    """
    if isinstance(keep, str):
        raise TypeError(f"keep={keep!r}: expected several names, as ({keep!r},)")

    def chosen(name: str, module: nn.Module) -> bool:
        return type(module) is nn.Linear and not any(f".{k}." in f".{name}." for k in keep)

    return replaced(
        model, chosen, lambda linear: layer.from_linear(linear, **settings), "nn.Linear"
    )


def to_ternary(model: _Module, encoding: str = "auto") -> _Module:
    """Put a TernaryLinear in the place of every BitLinear of a module, and return the module: the
    same function, for inference. Raises as `replace_linear` and `BitLinear.to_ternary`."""
    return replaced(
        model,
        lambda name, module: isinstance(module, BitLinear),
        lambda found: found.to_ternary(encoding),
        "BitLinear",
    )


def check_module(model: Any) -> None:
    """Raises TypeError for what is none."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: {type(model).__name__}, expected a torch.nn.Module")


def replaced(
    model: _Module,
    chosen: Callable[[str, nn.Module], bool],
    make: Callable[[Any], nn.Module],
    expected: str,
) -> _Module:
    """Replace the modules that are chosen by their names and themselves, all of them or none.

    expected: what is looked for. Raises TypeError and ValueError as `replace_linear`.
    """
    check_module(model)
    if chosen("", model):
        raise ValueError(f"model: a {type(model).__name__} itself, expected a module that has some")
    places = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if chosen(name, module)
    }
    if not places:
        raise ValueError(f"model: has no {expected} to replace")
    owners = Counter(
        id(weight)
        for module in model.modules()
        for weight in {id(p): p for p in module._parameters.values() if p is not None}.values()
    )
    new: dict[int, nn.Module] = {}
    for name, module in places.items():
        if any(p is not None and owners[id(p)] > 1 for p in module._parameters.values()):
            raise ValueError(
                f"{name}: shares weights with another module, expected its own (keep={name!r})"
            )
        if id(module) not in new:  # a layer at two places is one layer there afterwards
            try:
                new[id(module)] = make(module)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
    for name, module in places.items():
        model.set_submodule(name, new[id(module)])
    return model
