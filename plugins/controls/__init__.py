"""Control channels of a run."""
