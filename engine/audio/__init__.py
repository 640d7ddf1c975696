"""Building blocks of sources and detectors: ring, resampler, reblocker, segmenter."""
