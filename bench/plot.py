"""Draw the pictures of a run from its results."""

import sys

from bench.pages.plot import main

if __name__ == "__main__":
    sys.exit(main())
