"""bench.decode: the decoder beside the read bandwidth and beside llama.cpp."""
