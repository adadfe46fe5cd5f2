"""What the machine can do: memory by level, instructions, barriers."""
