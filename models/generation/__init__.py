"""Generation of song: the command ``generate``, its figures and explanations."""
