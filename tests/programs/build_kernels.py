"""Run hatch_build.py as hatchling does for a wheel, and print which files it adds.

python -m tests.programs.build_kernels

hatchling itself need not be installed: a build has it in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from tests.helpers.processes import ROOT


class _Hook:
    """What the hook uses of hatchling's `BuildHookInterface`."""

    root = str(ROOT)
    app = types.SimpleNamespace(display_info=print, display_warning=print)

    def __class_getitem__(cls, item: Any) -> type:
        return cls


def _hook() -> Any:
    names = ["hatchling", "builders", "hooks", "plugin", "interface"]
    for count in range(1, len(names) + 1):
        sys.modules[".".join(names[:count])] = types.ModuleType(names[count - 1])
    sys.modules[".".join(names)].BuildHookInterface = _Hook  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CompiledKernels()


if __name__ == "__main__":
    hook, data = _hook(), dict[str, Any](force_include={})
    hook.initialize("standard", data)
    print(*sorted(data["force_include"].values()), flush=True)
    hook.finalize("standard", data, "")
