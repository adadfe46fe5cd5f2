"""Write a model of random weights."""

import sys

from bench.models.dummy import main

if __name__ == "__main__":
    sys.exit(main())
