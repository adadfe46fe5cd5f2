"""bench.torch: layers for PyTorch beside its own."""
