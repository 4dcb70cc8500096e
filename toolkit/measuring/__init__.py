"""Benchmarks in worker processes: interleaved blocks, load tests, statistics, environment."""
