"""Spectrogram features and their inverse."""
