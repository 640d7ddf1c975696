"""Lanes of a worker: which run together, and what happens when one fails."""
