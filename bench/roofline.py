"""Draw the roofline of bench.kernels."""

import sys

from bench.pages.plots.roofline import main

if __name__ == "__main__":
    sys.exit(main())
