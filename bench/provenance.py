"""Say which commit and which machine figures are from."""

import sys

from bench.pages.provenance import main

if __name__ == "__main__":
    sys.exit(main())
