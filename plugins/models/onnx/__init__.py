"""Running and checking ONNX graphs."""
