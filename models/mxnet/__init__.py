"""The families as Gluon blocks (MXNet 1.9.1, which runs with numpy 1.23 alone), a file each."""
