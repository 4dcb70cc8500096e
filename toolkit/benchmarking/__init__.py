"""Commands that measure: bench, compare and bench_training."""
