"""Two runs side by side: `python -m bench.compare OLD NEW` is bench.run's --compare."""

import sys

from bench.suites.run.command import main

if __name__ == "__main__":
    names = sys.argv[1:]
    sys.exit(main(["--compare", *names] if len(names) > 1 else names or ["--help"]))
