"""The public Python API: a function for each command, which does everything that it does."""
