"""The live page: events and spectrogram columns of running engines in a browser."""
