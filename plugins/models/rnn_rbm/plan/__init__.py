"""Song after a plan: which unit is sung when, and the frames that follow it."""
