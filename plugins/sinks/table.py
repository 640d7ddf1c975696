"""The forms of tables that annotation programs read."""

import csv
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Label, Message, Offset, Onset, StreamInfo
from neurovocal.plugins.storage.folder import OutputFolder
from neurovocal.plugins.storage.text_file import (
    STDOUT,
    Existing,
    TextOutput,
    claim,
    on_existing,
    output_problems,
)

Content: TypeAlias = Literal["segments", "labels"]


@dataclass(frozen=True, slots=True)
class Row:
    """Segment ``[onset, offset)`` in samples, its unit, and posterior or score.

    ``onset_ns`` is the onset's UTC, None where it is not known.
    """

    info: StreamInfo
    onset: int
    offset: int
    unit: str
    value: float
    onset_ns: int | None = None

    @property
    def onset_s(self) -> str:
        """Onset in seconds."""
        return _seconds(self.onset, self.info)

    @property
    def offset_s(self) -> str:
        """Offset in seconds."""
        return _seconds(self.offset, self.info)

    @property
    def number(self) -> str:
        """Posterior or score; empty when it is not known."""
        return "" if math.isnan(self.value) else f"{self.value:.6f}"


class CsvTable:
    """Columns file, onset_s, offset_s, then score; or label and posterior."""

    def __init__(
        self, path: str, content: Content, existing: Existing = "replace"
    ) -> None:
        self._output = TextOutput(path, existing=existing)
        self._labels = content == "labels"
        self._csv = csv.writer(self._output, lineterminator="\n")

    def open(self) -> None:
        """Open the file and write the heading, unless it was open before."""
        last = ("label", "posterior") if self._labels else ("score",)
        if self._output.open():
            self._csv.writerow(("file", "onset_s", "offset_s", *last))

    def write(self, row: Row) -> None:
        """Write a row."""
        last = (row.unit, row.number) if self._labels else (row.number,)
        self._csv.writerow((row.info.stream, row.onset_s, row.offset_s, *last))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._output.flush()

    def close(self) -> None:
        """Close the file."""
        self._output.close()


class RavenTable:
    """A Raven selection table: tabs, a numbered row per selection.

    Times are those of each recording, which the column "Begin File" names. The
    frequency limits, which the engine does not measure, span everything.
    """

    _HEADING = (
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
        "Begin File",
    )

    def __init__(
        self, path: str, content: Content, existing: Existing = "replace"
    ) -> None:
        self._output = TextOutput(path, existing=existing)
        self._labels = content == "labels"
        self._selection = 0

    def open(self) -> None:
        """Open the file and write the heading, unless it was open before."""
        last = ("Annotation", "Posterior") if self._labels else ("Score",)
        if self._output.open():
            self._line(*self._HEADING, *last)

    def write(self, row: Row) -> None:
        """Write a row."""
        self._selection += 1
        last = (row.unit, row.number) if self._labels else (row.number,)
        self._line(
            str(self._selection),
            "Spectrogram 1",
            "1",
            row.onset_s,
            row.offset_s,
            "0.0",
            f"{row.info.sample_rate / 2:.1f}",
            row.info.stream,
            *last,
        )

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._output.flush()

    def close(self) -> None:
        """Close the file."""
        self._output.close()

    def _line(self, *cells: str) -> None:
        self._output.write("\t".join(map(_cell, cells)) + "\n")


class AudacityTable:
    """An Audacity label track: onset, offset and text, no heading.

    A track belongs to one recording. The first stream is written to the path
    itself, every further one to a file beside it, ``STEM.STREAM.SUFFIX``.
    """

    def __init__(
        self, path: str, content: Content, existing: Existing = "replace"
    ) -> None:
        self._path = path
        self._existing: Existing = existing
        self._labels = content == "labels"
        self._place = OutputFolder(Path(path).expanduser().parent)
        self._output = TextOutput(path, existing=existing, place=self._place)
        self._outputs: dict[str, TextOutput] = {}
        self._stream: str | None = None

    def open(self) -> None:
        """Open the file of the newest stream; there is no heading."""
        self._output.open()

    def write(self, row: Row) -> None:
        """Write a row, into the file of its stream."""
        if row.info.stream != self._stream:
            self._turn_to(row.info.stream)
        text = row.unit if self._labels else row.number
        self._output.write(f"{row.onset_s}\t{row.offset_s}\t{_cell(text)}\n")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._output.flush()

    def close(self) -> None:
        """Close the file."""
        self._output.close()

    def _turn_to(self, stream: str) -> None:
        """Write into another stream's file; only one is open at a time."""
        if not self._outputs:
            self._outputs[stream] = self._output
        elif self._path == STDOUT:
            raise StageError(
                "an Audacity label track holds one recording: give a file to write "
                "to, and each further recording gets one of its own"
            )
        else:
            self._output.close()
            if stream not in self._outputs:
                name = self._beside(stream)
                self._outputs[stream] = TextOutput(
                    name, existing=self._existing, place=self._place
                )
            self._output = self._outputs[stream]
            self._output.open()
        self._stream = stream

    def _beside(self, stream: str) -> str:
        path = Path(self._path)
        plain = re.sub(r"[^\w.-]+", "_", stream)
        taken = {output.path for output in self._outputs.values()}
        name = str(path.with_name(f"{path.stem}.{plain}{path.suffix}"))
        number = 2
        while name in taken:
            name = str(path.with_name(f"{path.stem}.{plain}-{number}{path.suffix}"))
            number += 1
        return name


class JsonTable:
    """JSON lines: what CSV has, and the time of day of onset and recording.

    ``onset_utc`` and ``start_utc``, when the recording began, are null where that is
    not known.
    """

    def __init__(
        self, path: str, content: Content, existing: Existing = "replace"
    ) -> None:
        self._output = TextOutput(path, existing=existing)
        self._labels = content == "labels"

    def open(self) -> None:
        """Open the file."""
        self._output.open()

    def write(self, row: Row) -> None:
        """Write a row."""
        value = None if math.isnan(row.value) else round(row.value, 6)
        line: dict[str, object] = {
            "file": row.info.stream,
            "onset_s": float(row.onset_s),
            "offset_s": float(row.offset_s),
        }
        line |= (
            {"label": row.unit, "posterior": value}
            if self._labels
            else {"score": value}
        )
        start_ns = None
        if row.onset_ns is not None:
            start_ns = row.onset_ns - row.onset * NS // row.info.sample_rate
        line |= {"onset_utc": _utc(row.onset_ns), "start_utc": _utc(start_ns)}
        self._output.write(json.dumps(line, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._output.flush()

    def close(self) -> None:
        """Close the file."""
        self._output.close()


Table: TypeAlias = CsvTable | RavenTable | AudacityTable | JsonTable
TABLES: dict[str, type[Table]] = {
    "json": JsonTable,
    "csv": CsvTable,
    "raven": RavenTable,
    "audacity": AudacityTable,
}


def _utc(utc_ns: int | None) -> str | None:
    if utc_ns is None:
        return None
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=utc_ns // 10**6)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(sample: int, info: StreamInfo) -> str:
    return f"{sample / info.sample_rate:.6f}"


def _cell(text: str) -> str:
    """Tabs and line ends would break the table."""
    return " ".join(text.split()) if any(c in text for c in "\t\r\n") else text


class TableOptions(Options):
    """Options of the table sink."""

    path: str = "-"
    """File to write; `-` is standard output. A live run sets what an earlier run left
    aside, as `STEM.1.left.SUFFIX`; offline runs replace it."""
    format: Literal["csv", "raven", "audacity", "json"] = "csv"
    """Form of the table; `json` is a line for each row, with times of day.
    Audacity's form holds one recording: further streams get files of their own
    beside `path`, named after the stream."""
    content: Literal["segments", "labels"] = "labels"
    """What a row is: a detected segment with its score, or a final label."""


class TableSink:
    """One row per segment or label, written as soon as it is final.

    Parameters
    ----------
    options : TableOptions
        Checked options.
    existing : {'replace', 'append', 'set aside'}
        What becomes of a file that is there.
    """

    def __init__(self, options: TableOptions, existing: Existing = "replace") -> None:
        self._content: Content = options.content
        labels = options.content == "labels"
        self.wants = frozenset({"label"} if labels else {"onset", "offset"})
        self._table = TABLES[options.format](options.path, options.content, existing)
        self._scores: dict[tuple[str, int], float] = {}
        self._rows = 0

    def open(self) -> None:
        """Open the file and write the heading; ConfigError when that fails."""
        self._table.open()

    def write(self, message: Message) -> None:
        """Write a row if the message completes one."""
        row = self._row(message)
        if row is not None:
            self._table.write(row)
            self._rows += 1

    def flush(self, timeout: float) -> None:
        """Hand everything to the operating system."""
        self._table.flush()

    def close(self) -> None:
        """Close the file."""
        self._table.close()

    def stats(self) -> dict[str, object]:
        """Rows so far."""
        return {"rows": self._rows}

    def _row(self, message: Message) -> Row | None:
        event, info = message.event, message.info
        if self._content == "labels":
            if not isinstance(event, Label) or event.status != "final":
                return None
            if event.offset is None:
                return None
            return Row(
                info,
                event.onset,
                event.offset,
                event.unit,
                event.posterior,
                message.utc_ns,
            )
        match event:
            case Onset():
                self._scores[info.stream, event.segment] = event.score
            case Offset():
                # The engine's queue may have dropped the onset: then no score.
                score = self._scores.pop((info.stream, event.segment), float("nan"))
                onset_ns = message.utc_ns
                if onset_ns is not None:
                    length = event.sample - event.onset
                    onset_ns -= length * NS // info.sample_rate
                return Row(info, event.onset, event.sample, "", score, onset_ns)
        return None


def _build(options: TableOptions, context: BuildContext) -> TableSink:
    return TableSink(options, on_existing(context))


plugin = Plugin(
    kind="sink",
    options=TableOptions,
    build=_build,
    summary="writes segments or labels as CSV, Raven or Audacity tables",
    resources=lambda options: claim(options.path),
    check=lambda options, context: output_problems(options.path),
)
