"""Search for the fastest variant of a model that is still accurate enough."""
