"""Commands of training: `train`, `evaluate`, `plan`."""
