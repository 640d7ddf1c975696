"""Formats of annotations: each reads a file into rows with a label and times."""
