"""Classifier: network, training, calibration, detector search and ONNX graph."""
