"""Studies: a matrix of training, exports, checks and measurements, resumable at any point."""
