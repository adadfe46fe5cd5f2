"""Write docs/COST_MODEL.md."""

import sys

from bench.pages.cost_model import main

if __name__ == "__main__":
    sys.exit(main())
