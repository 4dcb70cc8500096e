"""The search for the fastest form of a model that is still the model."""
