"""Is the cost model right about this machine?"""

from bench.suites.cost.command import main

if __name__ == "__main__":
    raise SystemExit(main())
