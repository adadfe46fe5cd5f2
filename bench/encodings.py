"""Write docs/ENCODINGS.md."""

from bench.pages.encodings import main

if __name__ == "__main__":
    raise SystemExit(main())
