"""Draw the pictures of a run from its results."""

from bench.pages.plot import main

if __name__ == "__main__":
    raise SystemExit(main())
