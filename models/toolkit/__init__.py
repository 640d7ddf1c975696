"""Recipe, training loop, optimizers, progress and ONNX tools of all networks."""
