"""Rehearsals: each fault against the user's own configuration (docs/reliability.md)."""
