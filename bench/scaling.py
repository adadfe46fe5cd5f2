"""Which bits of a weight are worth most, at an equal number of bits in all?"""

from bench.suites.scaling.command import main

if __name__ == "__main__":
    raise SystemExit(main())
