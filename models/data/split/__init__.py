"""Training, validation and test split: assignment and cuts in silences."""
