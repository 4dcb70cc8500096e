"""PyTorch: eager, compiled, exported and AOTInductor, on the CPU and on a GPU."""
