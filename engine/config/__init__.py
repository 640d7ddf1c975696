"""Configuration files: YAML with line numbers, schema, validation, run plans."""
