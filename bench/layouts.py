"""Draw docs/layouts."""

from bench.pages.layouts import main

if __name__ == "__main__":
    raise SystemExit(main())
