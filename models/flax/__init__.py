"""Families as Flax modules, a file each."""
