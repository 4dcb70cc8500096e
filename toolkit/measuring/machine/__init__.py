"""Description of this machine: environment, GPUs, and its roofline."""
