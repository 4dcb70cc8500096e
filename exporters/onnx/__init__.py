"""Readers, writers and exporters of ONNX files, and what their quantisation needs."""
