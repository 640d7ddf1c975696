"""Files that survive a kill of the process."""
