"""Stages of many channels that process together: one call for all of them."""
