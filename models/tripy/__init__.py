"""Model families as NVIDIA Tripy modules, one file per family."""
