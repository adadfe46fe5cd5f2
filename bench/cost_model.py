"""Write docs/COST_MODEL.md."""

from bench.pages.cost_model import main

if __name__ == "__main__":
    raise SystemExit(main())
