"""What bench.correctness stores."""

CORRECTNESS_FILE, CORRECTNESS_FORMAT = "correctness.json", 1
