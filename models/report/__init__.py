"""The report of a bundle: one HTML page with learning curves, measures and figures."""
