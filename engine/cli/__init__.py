"""The command line: ``neurovocal``."""

from neurovocal.engine.cli import interrupts, streams
from neurovocal.engine.support.process import uncollected

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit; `args` stand in place of the process's own."""
    if args is None:
        streams.open_missing()
        interrupts.install()
    with uncollected():
        from neurovocal.engine.cli.app import main as run_command_line  # takes long

    run_command_line(args)
