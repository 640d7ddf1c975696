"""Scores of detectors, and rules that follow them."""
