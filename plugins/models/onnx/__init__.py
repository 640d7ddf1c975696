"""ONNX graphs: scan, session, golden vectors."""
