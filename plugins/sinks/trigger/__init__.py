"""The `trigger` sink: answers to what was detected."""
