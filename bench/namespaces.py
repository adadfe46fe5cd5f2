"""Run ranks with a network of a given latency and rate between them, on one machine."""

from bench.suites.links.namespaces import main

if __name__ == "__main__":
    raise SystemExit(main())
