"""The kernels beside the machine's limits and beside other engines."""

from bench.suites.kernels.command import main

if __name__ == "__main__":
    raise SystemExit(main())
