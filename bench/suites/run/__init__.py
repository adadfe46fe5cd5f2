"""bench.run: sizes, engines and encodings beside the machine's limits."""
