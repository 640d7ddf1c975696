"""Writing bundles and checking them against torch."""
