"""TensorFlow: SavedModels, their compilation by XLA, and their evaluation in float64."""
