"""bench.kernels: products beside the machine's limits and beside other engines."""
