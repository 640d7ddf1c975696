"""The `clips` sink: audio of chosen segments."""
