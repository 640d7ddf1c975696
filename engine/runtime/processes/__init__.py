"""Lanes in processes of their own: ``workers`` of a configuration."""
