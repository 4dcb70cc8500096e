"""Writers of models whose inner tensors are additional outputs."""
