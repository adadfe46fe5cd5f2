"""The decoder beside the machine's bandwidth and beside llama.cpp."""

from bench.suites.decode.command import main

if __name__ == "__main__":
    raise SystemExit(main())
