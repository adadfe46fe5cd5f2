"""What the metadata of a GGUF file say of one architecture, with their types checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from ternops.shown import shown


class Keys:
    """The metadata of one architecture."""

    def __init__(self, metadata: dict[str, Any], prefix: str) -> None:
        self._metadata, self.prefix = metadata, prefix

    def __contains__(self, name: str) -> bool:
        return f"{self.prefix}.{name}" in self._metadata

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"config: {self.prefix}.{name} is {shown(value)}, expected an integer")
        return value

    def decimal(self, name: str, default: float | None = None) -> float:
        """The shortest decimal of a float32: the number that the model's config.json had."""
        value = self._get(name, default)
        if not isinstance(value, float):
            raise ValueError(f"config: {self.prefix}.{name} is {shown(value)}, expected a float")
        return float(str(np.float32(value)))

    def numbers(self, name: str) -> list[Any]:
        """A list of numbers."""
        value = self._get(name, None)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise ValueError(
                f"config: {self.prefix}.{name} is {shown(value)}, expected a list of numbers"
            )
        return value.tolist()

    def choice(self, name: str, choices: dict[str, str], default: str) -> str:
        value = self._get(name, default)
        if not isinstance(value, str) or value not in choices:
            expected = " or ".join(choices)
            raise ValueError(f"config: {self.prefix}.{name} is {shown(value)}, expected {expected}")
        return choices[value]

    def _get(self, name: str, default: Any) -> Any:
        value = self._metadata.get(f"{self.prefix}.{name}", default)
        if value is None:
            raise ValueError(f"config: {self.prefix}.{name} is missing")
        return value
