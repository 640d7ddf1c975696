"""Sinks: they write, publish or play the events and the audio of lanes."""
