"""Forecast of the next unit: network, training, prior, ONNX graph and evaluation."""
