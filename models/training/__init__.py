"""Training from a dataset to a bundle: stages, record, card, transfer, workspace."""
