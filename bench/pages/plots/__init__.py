"""The pictures of a run, one module each: `draw(results)` gives a Figure, or None without data."""
