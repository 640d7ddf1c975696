"""Shadows that stay beside the lanes of a run, in threads of their own."""
