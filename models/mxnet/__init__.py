"""Model families as Gluon blocks (MXNet 1.9.1, which needs NumPy 1.23), one file per family."""
