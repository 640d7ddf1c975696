"""Events as lines of canonical JSON: the same audio gives the same file."""

import sys
from pathlib import Path
from typing import BinaryIO

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.types import BULK_KINDS, KINDS, Message
from neurovocal.engine.wire import event_json

STDOUT = "-"


class JsonlOptions(Options):
    """Options of the ``jsonl`` sink."""

    path: str = STDOUT
    """File to write; `-` is stdout. An existing file is replaced."""
    values: bool = False
    """Whether frames and other bulky events are written with their values."""


class JsonlSink:
    """One line per event, without run, time of day and latency.

    What depends on the run is left out, so that two runs over the same audio
    can be compared with `diff`.

    Parameters
    ----------
    options : JsonlOptions
        File and content.
    """

    def __init__(self, options: JsonlOptions) -> None:
        bulk = frozenset() if options.values else BULK_KINDS
        self.wants = frozenset(KINDS.values()) - bulk - {"stats", "anchor", "block"}
        self._options = options
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Open the file.

        Raises
        ------
        ConfigError
            It cannot be written.
        """
        if self._options.path == STDOUT:
            self._file = sys.stdout.buffer
            return
        try:
            self._file = Path(self._options.path).expanduser().open("wb")
        except OSError as error:
            raise ConfigError(
                f"'{self._options.path}' cannot be written: {error.strerror}"
            ) from error

    def write(self, message: Message) -> None:
        """Write a line."""
        assert self._file is not None, "write before open"
        self._file.write(event_json(message, values=self._options.values) + b"\n")
        if self._options.path == STDOUT:
            self._file.flush()

    def flush(self, timeout: float) -> None:
        """Bring the lines so far into the file."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._options.path != STDOUT:
            self._file.close()
        self._file = None


def _build(options: JsonlOptions, context: BuildContext) -> JsonlSink:
    return JsonlSink(options)


def _claims(options: JsonlOptions) -> frozenset[str]:
    if options.path == STDOUT:
        return frozenset({"stdout"})
    return frozenset({f"file:{Path(options.path).expanduser().resolve()}"})


plugin = Plugin(
    kind="sink",
    options=JsonlOptions,
    build=_build,
    summary="Events as lines of canonical JSON",
    resources=_claims,
)
