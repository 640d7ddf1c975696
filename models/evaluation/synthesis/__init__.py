"""Similarity of generated and real song: measures of sequences of frames."""
