"""Model `onnx`: any audio classifier in an ONNX file, described by a manifest."""
