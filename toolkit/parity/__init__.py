"""Checks that two runs of a model agree in outputs, losses and accuracy."""
