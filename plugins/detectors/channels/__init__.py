"""Detectors of several channels that process together."""
