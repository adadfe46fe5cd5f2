"""Write a run's results as one HTML file."""

import sys

from bench.pages.report import main

if __name__ == "__main__":
    sys.exit(main())
