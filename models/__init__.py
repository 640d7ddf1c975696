"""Training, evaluation and export of the models; tuning of a detector to examples.

All but `data`, `toolkit` and `tuning` need the train extra.
"""
