"""Datasets, splits, frames and augmentation for training."""
