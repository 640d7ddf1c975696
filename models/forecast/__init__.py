"""Training the forecast of the next unit."""
