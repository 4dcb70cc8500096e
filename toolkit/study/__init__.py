"""Studies: a matrix of trainings, exports, checks and measurements, resumable at any point."""
