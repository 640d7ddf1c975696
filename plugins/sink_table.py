"""Writes segments or labels as a table: CSV, Raven selections or Audacity labels."""

import csv
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TextIO

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.types import Label, Message, Offset, Onset

_RAVEN = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin File",
    "Annotation",
)


class TableOptions(Options):
    """Options of the ``table`` sink."""

    path: str = "-"
    """File to write; `-` is stdout. An existing file is replaced."""
    format: Literal["csv", "raven", "audacity"] = "csv"
    """`csv`: with a header; `raven`: a selection table; `audacity`: a label track
    (one recording a file: times of several would lie over each other)."""
    content: Literal["labels", "segments"] = "labels"
    """A row per final label, or per segment whether it has a label or not."""


class TableSink:
    """One row per segment, written as soon as it is known.

    Parameters
    ----------
    options : TableOptions
        File, form and content.
    """

    def __init__(self, options: TableOptions) -> None:
        labels = options.content == "labels"
        self.wants = frozenset({"label"} if labels else {"onset", "offset"})
        self._options = options
        self._labels = labels
        self._file: TextIO | None = None
        self._write: Callable[[list[Any]], Any] = lambda row: None
        self._scores: dict[tuple[str, int], float] = {}
        self._selection = 0
        self._stream: str | None = None

    def open(self) -> None:
        """Open the file and write the header.

        Raises
        ------
        ConfigError
            The file cannot be written.
        """
        if self._options.path == "-":
            self._file = sys.stdout
        else:
            try:
                self._file = (
                    Path(self._options.path)
                    .expanduser()
                    .open("w", encoding="utf-8", newline="")
                )
            except OSError as error:
                raise ConfigError(
                    f"'{self._options.path}' cannot be written: {error.strerror}"
                ) from error
        if self._options.format == "csv":
            self._write = csv.writer(self._file, lineterminator="\n").writerow
            last = ["label", "posterior"] if self._labels else ["score"]
            self._write(["file", "onset_s", "offset_s", *last])
            return
        file = self._file
        self._write = lambda row: file.write("\t".join(map(str, row)) + "\n")
        if self._options.format == "raven":
            self._write([*_RAVEN, "Posterior" if self._labels else "Score"])

    def write(self, message: Message) -> None:
        """Write a row for a segment that has ended.

        Raises
        ------
        ConfigError
            A second recording for an Audacity track.
        """
        stream, event = message.info.stream, message.event
        rate = message.info.sample_rate
        match event:
            case Onset():
                self._scores[stream, event.segment] = event.score
            case Offset():
                score = self._scores.pop((stream, event.segment), 0.0)
                span = (event.onset / rate, event.sample / rate)
                self._row(stream, span, "", score)
            case Label(status="final", offset=int(offset)):
                span = (event.onset / rate, offset / rate)
                self._row(stream, span, event.unit, event.posterior)

    def flush(self, timeout: float) -> None:
        """Bring the rows so far into the file."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._file is not sys.stdout:
            self._file.close()
        self._file = None

    def _row(
        self, stream: str, span: tuple[float, float], unit: str, value: float
    ) -> None:
        begin, end = (f"{time:.6f}" for time in span)
        number = f"{value:.4f}"
        if self._options.format == "csv":
            label = [unit] if self._labels else []
            self._write([stream, begin, end, *label, number])
        elif self._options.format == "raven":
            self._selection += 1
            where = [self._selection, "Spectrogram 1", 1, begin, end, "", ""]
            self._write([*where, stream, unit, number])
        else:
            if self._stream not in (None, stream):
                raise ConfigError(
                    f"an Audacity label track is of one recording: '{stream}' needs "
                    "a file of its own (or use --format raven)"
                )
            self._stream = stream
            self._write([begin, end, unit or number])


def _build(options: TableOptions, context: BuildContext) -> TableSink:
    return TableSink(options)


def _claims(options: TableOptions) -> frozenset[str]:
    if options.path == "-":
        return frozenset({"stdout"})
    return frozenset({f"file:{Path(options.path).expanduser().resolve()}"})


def _check(options: TableOptions, context: BuildContext) -> Iterable[str]:
    folder = Path(options.path).expanduser().parent
    if options.path != "-" and not folder.is_dir():
        yield f"'{options.path}' cannot be written: folder '{folder}' does not exist"


plugin = Plugin(
    kind="sink",
    options=TableOptions,
    build=_build,
    summary="Segments or labels as a table: CSV, Raven or Audacity",
    resources=_claims,
    check=_check,
)
