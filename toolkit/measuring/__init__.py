"""Measuring: worker processes, blocks in turn, statistics, environment."""
