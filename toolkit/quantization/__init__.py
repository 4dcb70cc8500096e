"""The command calibrate: ranges, quantised graphs and mixed precision."""
