"""Engine process of a rehearsal: writes its events to stdout as JSON lines.

python -m neurovocal.engine.cli.rehearsal_process CONFIG BASE
"""

import sys
import time
from pathlib import Path

import msgspec

from neurovocal.engine.cli.logs import LogFormat, LogLevel, set_up_logging
from neurovocal.engine.cli.session import Display, plan_of_parts, run_plan
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.errors import (
    EXIT_CLEAN,
    NeurovocalError,
    StartInterrupted,
)
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.rehearsal.engine_process import EngineEvent
from neurovocal.engine.wire.codec import event_json


class EventPrinter(Display):
    """Observer that prints a line of JSON on stdout for every event.

    It is no sink of the configuration, so that no fault applies to it.

    Parameters
    ----------
    run : str
        Name of the run.
    """

    wants = frozenset({"label", "offset", "gap", "health", "anchor", "stats"})

    def __init__(self, run: str) -> None:
        self._run = run
        self._out = sys.stdout.buffer

    def write(self, message: Message) -> None:
        """Print one event and flush the line."""
        header = msgspec.Raw(event_json(message))
        event = EngineEvent(self._run, time.monotonic_ns(), header)
        self._out.write(msgspec.json.encode(event) + b"\n")
        self._out.flush()


def main(config: str, base: str) -> int:
    """Run a sandboxed configuration until it is stopped; return the exit code."""
    set_up_logging(False, LogLevel.WARNING, LogFormat.TEXT)
    try:
        plan = plan_of_parts(locate_config(config), Path(base), dry_run=True)
        return run_plan(plan, EventPrinter(plan.context.run)).exit_code
    except NeurovocalError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except (StartInterrupted, KeyboardInterrupt):
        return EXIT_CLEAN


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
