"""Draw the roofline of bench.kernels."""

from bench.pages.plots.roofline import main

if __name__ == "__main__":
    raise SystemExit(main())
