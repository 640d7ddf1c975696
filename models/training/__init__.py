"""The `train` command."""
