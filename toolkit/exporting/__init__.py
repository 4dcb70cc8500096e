"""The command export, and the checks of weights, outputs and inner tensors."""
