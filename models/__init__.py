"""Training, evaluation and export of the models ; only `tuning` and `data` run without torch."""
