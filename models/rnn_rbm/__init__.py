"""Training the RNN-RBM."""
