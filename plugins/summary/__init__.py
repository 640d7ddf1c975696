"""Command ``neurovocal summary``: what a journal holds, by hour or day."""
