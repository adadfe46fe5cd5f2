"""What one tier computes for the lossless table."""

from bench.suites.lossless.tier import main

if __name__ == "__main__":
    main()
