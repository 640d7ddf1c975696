"""Evaluation of bundles on annotated recordings."""
