"""The process that is put to the test: an engine whose events are told on stdout.

python -m neurovocal.engine.cli.rehearsal_process CONFIG BASE
"""

import sys
import time
from pathlib import Path

import msgspec

from neurovocal.engine.cli.logs import LogFormat, LogLevel, set_up_logging
from neurovocal.engine.cli.session import plan_of_parts, run_plan
from neurovocal.engine.config.schema import load_config
from neurovocal.engine.contracts.errors import (
    EXIT_CLEAN,
    NeurovocalError,
    StartInterrupted,
)
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.rehearsal.engine_process import Told
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.wire.codec import event_json


class Teller:
    """An observer: a line of JSON on stdout for every event.

    It is no sink of the configuration, so that no fault strikes it.
    """

    wants = frozenset({"label", "offset", "gap", "health", "anchor", "stats"})

    def __init__(self, run: str) -> None:
        self._run = run
        self._out = sys.stdout.buffer

    def open(self) -> None:
        """Nothing to open."""

    def write(self, message: Message) -> None:
        """Tell one event at once."""
        header = msgspec.Raw(event_json(message))
        line = msgspec.json.encode(Told(self._run, time.monotonic_ns(), header))
        self._out.write(line + b"\n")
        self._out.flush()

    def flush(self, timeout: float) -> None:
        """Each line is handed on at once."""

    def close(self) -> None:
        """Nothing to close."""

    def watch(self, runner: Runner) -> None:
        """Only messages are needed."""

    def draw(self) -> None:
        """Nothing to show."""


def main(config: str, base: str) -> int:
    """Run a stand-in until it is told to stop; an exit code."""
    set_up_logging(False, LogLevel.WARNING, LogFormat.TEXT)
    try:
        checked, located = load_config(config)
        plan = plan_of_parts(checked, located, Path(base), dry_run=True)
        return run_plan(plan, Teller(plan.context.run)).exit_code
    except NeurovocalError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except (StartInterrupted, KeyboardInterrupt):
        return EXIT_CLEAN


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
