"""A tiny random SmolVLM in the public layout. Needs `onnx` (test extra), not torch."""
