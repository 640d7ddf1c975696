"""What a machine lacks for a run, and what helps somebody else to find a fault."""
