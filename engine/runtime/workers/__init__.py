"""Threads of a run and what they hand to each other."""
