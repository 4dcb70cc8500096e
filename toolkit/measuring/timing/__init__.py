"""Timed blocks: the loop, its clock, placement, memory and CPU contention."""
