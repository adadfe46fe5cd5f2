"""bench.serve: what HTTP costs, and what it withstands."""
