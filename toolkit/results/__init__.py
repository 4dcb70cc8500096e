"""The store of results: one immutable file a run."""
