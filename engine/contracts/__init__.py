"""Contracts of all packages: data types, stage protocols, options, plugins, bundles."""
