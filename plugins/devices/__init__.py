"""Audio devices."""
