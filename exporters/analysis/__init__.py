"""Operation counts of ONNX graphs."""
