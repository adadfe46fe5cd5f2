"""bench.scaling: perplexity against total bits, for every way to round the weights."""
