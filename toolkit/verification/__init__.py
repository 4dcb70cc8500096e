"""The command verify: metrics on labelled samples, and accuracy comparisons."""
