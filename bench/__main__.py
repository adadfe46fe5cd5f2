"""`python -m bench` is no benchmark: one line says which there are."""

import sys
from pathlib import Path

from ternops.spelling import meant

if __name__ == "__main__":
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    more = meant(sys.argv[1], names) if len(sys.argv) > 1 else ""
    use = "expected python -m bench.NAME, as python -m bench.run --quick; NAME is one of"
    print(f"python -m bench: error: {use} {', '.join(names)}{more}", file=sys.stderr)
    raise SystemExit(2)
