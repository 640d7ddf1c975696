"""Faults on purpose: what a run does when its world fails (docs/reliability.md)."""
