"""Files in a model's folder that make another model of it."""

from __future__ import annotations

from pathlib import Path

_ADAPTER = "an adapter, which would be left out: give it to --lora (lora=...), or merge it"
_OTHER = "which tells of a quantisation other than BitNet's"
_CHANGES = {
    "adapter_config.json": _ADAPTER,
    "adapter_model.safetensors": _ADAPTER,
    "adapter_model.bin": _ADAPTER,
    "adapters.safetensors": _ADAPTER,  # of MLX
    "adapters.npz": _ADAPTER,  # of its old versions
    "quantize_config.json": f"{_OTHER} (GPTQ)",
    "quant_config.json": f"{_OTHER} (AWQ)",
    "hf_quant_config.json": f"{_OTHER} (ModelOpt)",
}


def check_companions(folder: Path) -> None:
    """Raises ValueError, naming it, for a file that changes the weights and that nothing reads."""
    for name, reason in _CHANGES.items():
        if (folder / name).is_file():
            raise ValueError(f"model: {str(folder)!r} holds {name}, {reason}")
