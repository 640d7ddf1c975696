"""Privacy gates."""
