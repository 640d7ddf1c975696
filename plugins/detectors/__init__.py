"""Detectors of vocalizations."""
