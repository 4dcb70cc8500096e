"""Proof that the weights of an artifact are those of its source."""
