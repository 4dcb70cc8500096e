"""The families as NVIDIA Tripy modules, a file each."""
