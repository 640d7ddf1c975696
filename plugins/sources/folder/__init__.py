"""The `folder` source: recordings that appear in a folder."""
