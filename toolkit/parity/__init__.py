"""Whether two runs of a model agree: outputs, loss and accuracy."""
