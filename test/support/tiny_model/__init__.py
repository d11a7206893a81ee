"""A tiny random model in InternVL3's format, for tests. Needs `onnx` (test extra), not torch."""
