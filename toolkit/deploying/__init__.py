"""Deployment: what was chosen, as others serve it."""
