"""What benchmarks need installed, asked before one of them is imported."""

import importlib.util

_NEEDED = ("jinja2", "matplotlib", "psutil", "pyperf", "rich", "threadpoolctl", "tomli_w")


def missing() -> str:
    """A line about what is not installed, or ""."""
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install '.[bench]'"
    return ""
