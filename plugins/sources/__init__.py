"""Sources: where audio comes from."""
