"""Deployment to a Triton model repository or a standalone folder."""
