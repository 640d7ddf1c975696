"""The `trigger` sink: playback and model commands when a pattern of units occurs."""
