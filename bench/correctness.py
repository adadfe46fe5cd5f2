"""Each engine's perplexity and greedy tokens on the same files."""

from bench.suites.correctness.command import main

if __name__ == "__main__":
    raise SystemExit(main())
