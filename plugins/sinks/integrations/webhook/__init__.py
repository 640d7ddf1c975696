"""The `webhook` sink: events as HTTP requests."""
