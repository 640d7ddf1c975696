"""RNN-RBM: network, training, ONNX graphs, residual noise and likelihood."""
