"""Detectors fitted to annotated examples, without torch."""
