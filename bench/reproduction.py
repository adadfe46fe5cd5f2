"""Write docs/REPRODUCTION.md."""

import sys

from bench.pages.reproduction import main

if __name__ == "__main__":
    sys.exit(main())
