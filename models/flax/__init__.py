"""Model families as Flax modules, one file per family."""
