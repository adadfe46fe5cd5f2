"""The benchmark suite: what the machine can do, and what ternops makes of it."""
