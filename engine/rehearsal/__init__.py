"""Rehearsals: each fault against the user's own configuration.

Described in docs/performance/reliability.md.
"""
