"""Measure links between ranks on this machine, for docs/SCALING.md."""

from bench.suites.links.command import main

if __name__ == "__main__":
    raise SystemExit(main())
