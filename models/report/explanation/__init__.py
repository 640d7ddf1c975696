"""Explanation of labels: what decided them, and what would have changed them."""
