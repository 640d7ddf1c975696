"""Text, YAML, process and call-tracking helpers without knowledge of audio."""
