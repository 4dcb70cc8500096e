"""The steps: each the whole of what a command does, as a function. The public Python API."""
