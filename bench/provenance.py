"""Say which commit and which machine figures are from."""

from bench.pages.provenance import main

if __name__ == "__main__":
    raise SystemExit(main())
