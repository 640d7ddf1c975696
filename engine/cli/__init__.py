"""The command line: ``neurovocal``."""

from neurovocal.engine.cli.app import main

__all__ = ["main"]
