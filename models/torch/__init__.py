"""The families as torch modules, a file each."""
