"""Storage of results: one immutable file per run."""
