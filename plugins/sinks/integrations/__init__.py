"""Sinks that send events to programs and services of others."""
