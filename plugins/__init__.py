"""The built-in plugins: sources, features, detectors, models and sinks."""
