"""Write docs/SCALING.md."""

from bench.pages.ranks import main

if __name__ == "__main__":
    raise SystemExit(main())
