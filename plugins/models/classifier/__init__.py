"""The `classifier` model: labels segments by unit."""
