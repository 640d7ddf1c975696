"""Commands to a running engine."""
