"""The CPU engine: ONNX Runtime on the public split layout."""
