"""Write a summary of each day to a folder, at a local time of day."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from neurovocal.engine import (
    BuildContext,
    ConfigError,
    Message,
    Plugin,
)
from neurovocal.engine.journal import Summary
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.outputs import write_whole
from neurovocal.plugins.sinks.integrations.delivery.daily import DailySummary
from neurovocal.plugins.sinks.integrations.delivery.items import Outgoing
from neurovocal.plugins.sinks.integrations.delivery.options import (
    DeliveryOptions,
    delivery_problems,
    state_path,
)
from neurovocal.plugins.sinks.integrations.delivery.state import StateFile
from neurovocal.plugins.sinks.integrations.delivery.worker import (
    Attempt,
    DeliveryWorker,
)
from neurovocal.plugins.storage.folder import (
    OutputFolder,
    folder_access,
    folder_problems,
    stream_file_name,
)
from neurovocal.plugins.storage.text_file import file_access, file_claim
from neurovocal.plugins.summary.tables import csv_text, table_text

_NAME = "daily"
_WIDTH = 100
_SUFFIXES = {"json": ".json", "csv": ".csv", "table": ".txt"}


class DailyOptions(DeliveryOptions):
    """Options of the ``daily`` sink."""

    journal: str = Field(min_length=1)
    """File of the `journal` sink whose events are counted."""
    path: str = "summaries"
    """Folder for the files, `STATION-DATE.json`; made if it does not exist."""
    format: Literal["json", "csv", "table"] = "json"
    """Form of the files, as of `neurovocal summary`."""
    summary_at: str | None = "07:00"
    """Local time of day at which the counts of the 24 hours before are written."""


class DailySink:
    """Writes a file a day, also for days of which it was due while no engine ran.

    Parameters
    ----------
    options : DailyOptions
        Checked options.
    context : BuildContext
        Clock and name of the station.
    """

    # Its messages are of no use here: what is counted stands in the journal.
    wants = frozenset({"health"})

    def __init__(self, options: DailyOptions, context: BuildContext) -> None:
        self._options, self._clock = options, context.clock
        self._station = context.stream
        path = state_path(options, options.journal, _NAME)
        assert path is not None
        self._file = StateFile(path)
        self._folder = OutputFolder(at_home(options.path), make=True)
        self._worker: DeliveryWorker | None = None

    def open(self) -> None:
        """Read the state, make the folder and begin to wait for the time of day.

        Raises
        ------
        ConfigError
            The state cannot be read, or the folder not be written to.
        """
        try:
            self._folder.ensure_writable()
        except OSError as error:
            raise ConfigError(
                f"summaries cannot be written to '{self._options.path}': "
                f"{error.strerror}"
            ) from error
        self._file.acquire()
        if self._worker is None:
            self._file.load()
            files = _Files(self._folder, self._station, self._options.format)
            self._worker = DeliveryWorker(
                f"nv-{_NAME}",
                _NoEvents(),
                files,
                self._clock,
                batch=1,
                most_per_s=1000.0,
                summary=self._summary(),
            )
        self._worker.start()

    def write(self, message: Message) -> None:
        """Do nothing: what is counted stands in the journal."""

    def flush(self, timeout: float) -> None:
        """Do nothing: no message waits."""

    def close(self) -> None:
        """End the thread. May be called twice."""
        if self._worker is not None:
            self._worker.stop(0.0)
        self._file.release()

    @property
    def trouble(self) -> str | None:
        """Why a summary that is due cannot be written, or None."""
        worker = None if self._worker is None else self._worker.trouble
        return worker or self._file.trouble

    def _summary(self) -> DailySummary | None:
        options, at = self._options, self._options.time_of_summary()
        if at is None:
            return None
        summary = DailySummary(
            at_home(options.journal),
            self._station,
            at,
            options.zone(),
            self._file,
            self._clock,
            self._render if options.format != "json" else None,
        )
        summary.begin()
        return summary

    def _render(self, summary: Summary) -> str:
        if self._options.format == "csv":
            return csv_text(summary)
        return table_text(summary, at_home(self._options.journal).name, _WIDTH)


class _NoEvents:
    """Queue that is always empty: only summaries are delivered."""

    def open(self) -> None:
        """Do nothing."""

    def put(self, message: Message) -> None:
        """Do nothing."""

    def take(self, most: int) -> list[Outgoing]:
        """Return nothing."""
        return []

    def finish(self, items: Sequence[Outgoing]) -> None:
        """Do nothing."""

    def stats(self) -> dict[str, object]:
        """Return nothing."""
        return {}


class _Files:
    """Folder as the place where summaries are delivered."""

    def __init__(self, folder: OutputFolder, station: str, form: str) -> None:
        self.name = f"folder '{folder.folder}'"
        self._folder, self._station = folder, station
        self._suffix = _SUFFIXES[form]

    def send(self, items: Sequence[Outgoing]) -> Attempt:
        """Write each summary to a file of its own."""
        for number, item in enumerate(items):
            day = item.id.rpartition("/")[2]
            name = f"{stream_file_name(self._station)}-{day}{self._suffix}"
            try:
                self._folder.ensure()
                write_whole(self._folder.folder / name, item.body + b"\n")
            except OSError as error:
                return Attempt(number, error=f"'{name}': {error.strerror}")
        return Attempt(len(items))

    def tend(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def interrupt(self) -> None:
        """Do nothing: a disk is not waited for without end."""


def _problems(options: DailyOptions, context: BuildContext) -> Iterator[str]:
    yield from delivery_problems(options, context, options.journal, _NAME)
    yield from folder_problems(options.path)


def _state(options: DailyOptions) -> str:
    return str(state_path(options, options.journal, _NAME))


plugin = Plugin(
    kind="sink",
    options=DailyOptions,
    build=DailySink,
    summary="writes a summary of each day to a folder, at a local time",
    resources=lambda options: file_claim(_state(options)),
    check=_problems,
    writes=lambda options, context: [
        *file_access(_state(options)),
        *folder_access(options.path, f"*{_SUFFIXES[options.format]}"),
    ],
)
