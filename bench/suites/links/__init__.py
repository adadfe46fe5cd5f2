"""Several ranks: predictions, and a network between them on one machine."""
