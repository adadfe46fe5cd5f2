"""What is measured: a folder each for the programs that do so."""
