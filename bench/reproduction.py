"""Write docs/REPRODUCTION.md."""

from bench.pages.reproduction import main

if __name__ == "__main__":
    raise SystemExit(main())
