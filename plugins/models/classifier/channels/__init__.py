"""Classifiers of several channels that process together."""
