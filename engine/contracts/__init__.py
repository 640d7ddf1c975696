"""Data types, stage protocols, options, plugins, bundles: what every package shares."""
