"""Audio files: decoding, selection, start times."""
