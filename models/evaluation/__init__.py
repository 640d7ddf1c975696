"""Measuring bundles on annotated recordings."""
