"""Models that run on frames."""
