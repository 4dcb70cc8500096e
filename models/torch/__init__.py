"""Model families as torch modules, one file per family."""
