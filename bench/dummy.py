"""Write a model of random weights."""

from bench.models.dummy import main

if __name__ == "__main__":
    raise SystemExit(main())
