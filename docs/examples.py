"""Write docs/EXAMPLES.md: the scripts of examples/short, and what each of them prints.

python docs/examples.py
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "short"
PAGE = ROOT / "docs" / "EXAMPLES.md"
#: In the order of the page; the last needs PyTorch.
TITLES = {
    "multiply": "A matrix of your own",
    "levels": "Levels of your own",
    "generate": "Text of a model in a file",
    "server": "A server and its client",
    "solver": "A solver of SciPy",
    "predict": "A machine that is not here",
    "layers": "Layers in PyTorch",
}
_HEAD = """# Short examples

Written by `python docs/examples.py`, which runs each of them. The tests run them again: what they
print must be what stands here. Each takes some seconds, of a clone of this repository. Longer ones,
which train, are in examples/.
"""


def script(name: str) -> Path:
    """The file of an example."""
    return FOLDER / f"{name}.py"


def output(name: str) -> str:
    """What it prints; CalledProcessError if it fails."""
    done = subprocess.run(
        [sys.executable, str(script(name))], cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip
    return done.stdout


def section(name: str, printed: str) -> str:
    """Its part of the page: what it shows, its code, what it prints."""
    source = script(name).read_text("utf-8")
    # The formatter takes the indentation of a last line.
    words = re.sub(
        "^python ", "    python ", ast.get_docstring(ast.parse(source)) or "", flags=re.M
    )
    code = source.partition('"""\n\n')[2]
    return (
        f"\n## {TITLES[name]}\n\n[{name}.py](../examples/short/{name}.py): {words}\n\n"
        f"```python\n{code}```\n\nprints\n\n```text\n{printed}```\n"
    )


if __name__ == "__main__":
    PAGE.write_text(_HEAD + "".join(section(each, output(each)) for each in TITLES), "utf-8")
