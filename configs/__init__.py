"""Configurations that ship."""
