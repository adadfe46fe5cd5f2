"""ternops.torch beside PyTorch's own layers and transformers' own models."""

from bench.suites.torch.command import main

if __name__ == "__main__":
    raise SystemExit(main())
