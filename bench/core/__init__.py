"""What every suite stands on: cases and their timing, results and their files, commands."""
