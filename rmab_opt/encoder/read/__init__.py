"""Readers of trained networks: torch modules, ONNX files, safetensors."""
