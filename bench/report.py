"""Write a run's results as one HTML file."""

from bench.pages.report import main

if __name__ == "__main__":
    raise SystemExit(main())
