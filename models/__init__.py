"""Training, evaluation and export of models, tuning of detectors, scans of archives.

All but `data`, `scan`, `toolkit` and `tuning` need the train extra.
"""
