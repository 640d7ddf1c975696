"""Output files of sinks, which survive kills and failures of the disk."""
