"""Write segments or labels as tables that annotation programs read."""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from neurovocal.engine import (
    NS,
    BuildContext,
    Label,
    Message,
    Offset,
    Onset,
    Options,
    Plugin,
    StageError,
    StreamInfo,
)
from neurovocal.engine.contracts.types import channel_of
from neurovocal.engine.support.names import at_home, beside, bounded_name
from neurovocal.engine.support.text import plain, utc_text, without_formula
from neurovocal.plugins.storage.existing import FileKind, text_kind
from neurovocal.plugins.storage.folder import OutputFolder
from neurovocal.plugins.storage.text_file import (
    STDOUT,
    Existing,
    TextOutput,
    TextTable,
    existing_policy,
    file_access,
    file_claim,
    output_problems,
)

Content: TypeAlias = Literal["segments", "labels"]

_RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin File",
    "Begin Path",
    "File Offset (s)",
)
# Microseconds tell samples apart up to this rate.
_MOST_HZ_OF_MICROSECONDS = 500_000
_CHANNEL = re.compile(r"\.ch([1-9][0-9]{0,3})$")


# Existing files that the sink may replace or continue: tables of its own.
_KINDS: dict[str, FileKind] = {
    "csv": text_kind(
        "a table of segments or labels in CSV",
        r"file,onset_s,offset_s,(score|label,posterior)\r?",
    ),
    "raven": text_kind(
        "a Raven table of this program",
        "\t".join(map(re.escape, _RAVEN_COLUMNS[:8])) + r"\t.*(Score|Posterior)\r?",
    ),
    "audacity": text_kind("an Audacity label track", r"[\d.]+\t[\d.]+\t.*"),
    "json": text_kind("JSON lines of segments or labels", r'\{"file": .*\}'),
}


class TableOptions(Options):
    """Options of the table sink."""

    path: str = "-"
    """File to write; `-` is standard output. A live run renames an existing
    file to `STEM.1.left.SUFFIX`; offline runs replace it."""
    format: Literal["csv", "raven", "audacity", "json"] = "csv"
    """Form of the table; `json` is a line for each row, with times of day.
    Audacity's form holds one recording: further streams get files of their own
    beside `path`, named after the stream."""
    apart: bool = False
    """Whether the first recording, too, gets an Audacity track beside `path` that is
    named after it; then no file `path` is written."""
    content: Literal["segments", "labels"] = "labels"
    """What a row is: a detected segment with its score, or a final label."""
    safe_csv: bool = False
    """CSV: whether names and labels that begin with `=`, `+`, `-` or `@`, which
    spreadsheets take for formulas, get an apostrophe before them."""


@dataclass(frozen=True, slots=True)
class Row:
    """Segment ``[onset, offset)`` in samples, its unit, and its posterior or score.

    ``onset_ns`` is the onset in UTC, None if it is not known.
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
        return _seconds(*self._ticks(self.onset))

    @property
    def offset_s(self) -> str:
        """Offset in seconds."""
        return _seconds(*self._ticks(self.offset))

    @property
    def channel(self) -> int:
        """Channel of the recording, from 1; 1 if nothing tells it."""
        named = _CHANNEL.search(self.info.stream)
        if self.info.numbers or named is None:
            return channel_of(self.info, 0)
        return int(named[1])

    @property
    def recording(self) -> str:
        """Name of the recording, without the channel behind it."""
        return self.info.stream.removesuffix(f".ch{self.channel}")

    @property
    def file(self) -> str:
        """Name of the recording, with the channel behind it unless it is the first.

        The first one, too, has it where several channels are streams.
        """
        stream, end = self.info.stream, f".ch{self.channel}"
        return stream if self.channel == 1 else f"{stream.removesuffix(end)}{end}"

    def _ticks(self, sample: int) -> tuple[int, int]:
        """Return a time in ticks, and the decimal digits of a tick."""
        rate = self.info.sample_rate
        digits = 6 if rate <= _MOST_HZ_OF_MICROSECONDS else 9
        return (sample * 10**digits * 2 + rate) // (2 * rate), digits

    @property
    def number(self) -> str:
        """Posterior or score; empty if it is not known."""
        return "" if math.isnan(self.value) else f"{self.value:.6f}"


class Table(Protocol):
    """Table in a text file."""

    def open(self) -> None:
        """Open the file and write its heading; raise ConfigError if that fails."""
        ...

    def write(self, row: Row) -> None:
        """Write a row; raise StageError if that fails."""
        ...

    def flush(self) -> None:
        """Hand all rows to the operating system."""
        ...

    def commit(self) -> None:
        """Bring all rows to the disk."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class CsvTable(TextTable):
    """CSV with the columns file, onset_s, offset_s, then score or label, posterior.

    Parameters
    ----------
    safe : bool
        Texts that a spreadsheet would take for a formula get an apostrophe.
    """

    def __init__(
        self,
        path: str,
        content: Content,
        existing: Existing = "replace",
        *,
        safe: bool = False,
    ) -> None:
        super().__init__(path, existing, _KINDS["csv"])
        self._text = without_formula if safe else str
        self._has_labels = content == "labels"
        last = ("label", "posterior") if self._has_labels else ("score",)
        self.heading = ("file", "onset_s", "offset_s", *last)
        self._csv = csv.writer(self._output, lineterminator="\n")

    def write(self, row: Row) -> None:
        """Write a row."""
        unit = self._text(row.unit)
        last = (unit, row.number) if self._has_labels else (row.number,)
        file = self._text(row.file)
        self._write_cells((file, row.onset_s, row.offset_s, *last))

    def _write_cells(self, cells: Sequence[str]) -> None:
        self._csv.writerow(cells)


class RavenTable(TextTable):
    """Raven selection table: cells separated by tabs, a numbered row per selection.

    As Raven has it with several sound files open, times count on through the recordings
    in the order of their first rows; "File Offset (s)" is the onset in the recording
    "Begin File", which lies at "Begin Path". The frequency limits are 0 Hz and half the
    sample rate: the engine does not measure them.
    """

    def __init__(
        self, path: str, content: Content, existing: Existing = "replace"
    ) -> None:
        super().__init__(path, existing, _KINDS["raven"])
        self._has_labels = content == "labels"
        last = ("Annotation", "Posterior") if self._has_labels else ("Score",)
        self.heading = (*_RAVEN_COLUMNS, *last)
        self._selection = 0
        self._starts: dict[str, Decimal] = {}  # by recording
        self._stop = Decimal(0)  # of all recordings so far

    def write(self, row: Row) -> None:
        """Write a row."""
        self._selection += 1
        last = (row.unit, row.number) if self._has_labels else (row.number,)
        start = self._start_of(row)
        cells = (
            str(self._selection),
            "Spectrogram 1",
            str(row.channel),
            str(start + Decimal(row.onset_s)),
            str(start + Decimal(row.offset_s)),
            "0.0",
            f"{row.info.sample_rate / 2:.1f}",
            row.recording.rpartition("/")[2],
            row.recording,
            row.onset_s,
            *last,
        )
        self._write_cells([_one_line(cell) for cell in cells])

    def _start_of(self, row: Row) -> Decimal:
        """Return the time at which a recording begins, after those before it."""
        start = self._starts.setdefault(row.recording, self._stop)
        length = Decimal(row.offset_s)
        if row.info.duration_s is not None:
            length = max(length, Decimal(f"{row.info.duration_s:.6f}"))
        self._stop = max(self._stop, start + length)
        return start


def track_name(stream: str) -> str:
    """Return the part of an Audacity track's file name that names the stream."""
    return bounded_name(re.sub(r"[^\w.-]+", "_", plain(stream)))


class AudacityTable:
    """Audacity label track: onset, offset and text, without a heading.

    A track belongs to one recording. The first stream is written to the path itself,
    every further one to a file beside it, ``STEM.STREAM.SUFFIX``; if all are written
    apart, the first one as well.
    """

    def __init__(
        self,
        path: str,
        content: Content,
        existing: Existing = "replace",
        apart: bool = False,
    ) -> None:
        self._path = path
        self._apart = apart and path != STDOUT
        self._existing: Existing = existing
        self._has_labels = content == "labels"
        self._folder = OutputFolder(at_home(path).parent)
        self._output = None if self._apart else self._new_output(path)
        self._outputs: dict[str, TextOutput] = {}  # by stream
        self._stream: str | None = None

    def open(self) -> None:
        """Open the file of the newest stream."""
        if self._output is not None:
            self._output.open()

    def write(self, row: Row) -> None:
        """Write a row to the file of its stream."""
        output = self._output
        if output is None or row.file != self._stream:
            output = self._switch_to(row.file)
        text = row.unit if self._has_labels else row.number
        output.write(f"{row.onset_s}\t{row.offset_s}\t{_one_line(text)}\n")

    def flush(self) -> None:
        """Hand all rows to the operating system."""
        if self._output is not None:
            self._output.flush()

    def commit(self) -> None:
        """Bring the rows of the open file to the disk."""
        if self._output is not None:
            self._output.commit()

    def close(self) -> None:
        """Close the file."""
        if self._output is not None:
            self._output.close()

    def _switch_to(self, stream: str) -> TextOutput:
        """Open the file of another stream; only one is open at a time."""
        if self._output is not None and not self._outputs:
            self._outputs[stream] = self._output
        elif self._path == STDOUT:
            raise StageError(
                "an Audacity label track holds one recording: give a file to write "
                "to, and each further recording gets one of its own"
            )
        else:
            if self._output is not None:
                self._output.commit()
                self._output.close()
            if stream not in self._outputs:
                name = self._path_beside(stream)
                self._outputs[stream] = self._new_output(name)
            self._output = self._outputs[stream]
            self._output.open()
        self._stream = stream
        return self._outputs[stream]

    def _new_output(self, path: str) -> TextOutput:
        return TextOutput(
            path,
            existing=self._existing,
            folder=self._folder,
            kind=_KINDS["audacity"],
        )

    def _path_beside(self, stream: str) -> str:
        path = Path(self._path)
        plain = track_name(stream)
        used = {output.path for output in self._outputs.values()}
        name = str(beside(path, middle=f".{plain}"))
        number = 2
        while name in used or _KINDS["audacity"].problem(at_home(name)):
            name = str(beside(path, middle=f".{plain}-{number}"))
            number += 1
        return name


class JsonTable(TextTable):
    """JSON lines with the fields of the CSV, and the UTC of onset and recording.

    ``onset_utc`` and ``start_utc``, the begin of the recording, are null if they are
    not known.
    """

    def __init__(
        self, path: str, content: Content, existing: Existing = "replace"
    ) -> None:
        super().__init__(path, existing, _KINDS["json"])
        self._has_labels = content == "labels"

    def write(self, row: Row) -> None:
        """Write a row."""
        value = None if math.isnan(row.value) else round(row.value, 6)
        line: dict[str, object] = {
            "file": row.file,
            "onset_s": float(row.onset_s),
            "offset_s": float(row.offset_s),
        }
        line |= (
            {"label": row.unit, "posterior": value}
            if self._has_labels
            else {"score": value}
        )
        start_ns = None
        if row.onset_ns is not None:
            start_ns = row.onset_ns - row.onset * NS // row.info.sample_rate
        line |= {"onset_utc": _utc(row.onset_ns), "start_utc": _utc(start_ns)}
        self._output.write(json.dumps(line, ensure_ascii=False) + "\n")


TABLES: dict[str, type[RavenTable | JsonTable]] = {
    "json": JsonTable,
    "raven": RavenTable,
}


class TableSink:
    """Writes a row per segment or label, as soon as it is final.

    Parameters
    ----------
    options : TableOptions
        Checked options.
    existing : {'replace', 'append', 'set aside'}
        What happens to an existing file.
    """

    def __init__(self, options: TableOptions, existing: Existing = "replace") -> None:
        self._has_labels = options.content == "labels"
        self.wants = frozenset({"label"} if self._has_labels else {"onset", "offset"})
        self._table = _new_table(options, existing)
        self._scores: dict[tuple[str, int], float] = {}  # by stream and segment
        self._rows = 0

    def open(self) -> None:
        """Open the file and write the heading; raise ConfigError if that fails."""
        self._table.open()

    def write(self, message: Message) -> None:
        """Write a row if the message completes one."""
        row = self._label_row(message) if self._has_labels else self._score_row(message)
        if row is not None:
            self._table.write(row)
            self._rows += 1

    def flush(self, timeout: float) -> None:
        """Hand all rows to the operating system."""
        self._table.flush()

    @property
    def uncommitted(self) -> int:
        """Return 0: the operating system has every line."""
        return 0

    def commit(self) -> None:
        """Bring all lines to the disk; raise StageError if that fails."""
        self._table.commit()

    def close(self) -> None:
        """Close the file."""
        self._table.close()

    def stats(self) -> dict[str, object]:
        """Return the number of rows."""
        return {"rows": self._rows}

    def _label_row(self, message: Message) -> Row | None:
        label = message.event
        if not isinstance(label, Label) or label.status != "final":
            return None
        if label.offset is None:
            return None
        return Row(
            message.info,
            label.onset,
            label.offset,
            label.unit,
            label.posterior,
            message.utc_ns,
        )

    def _score_row(self, message: Message) -> Row | None:
        event, info = message.event, message.info
        match event:
            case Onset():
                self._scores[info.stream, event.segment] = event.score
            case Offset():
                # The engine's queue may have dropped the onset: then no score.
                score = self._scores.pop((info.stream, event.segment), float("nan"))
                if event.revised_score is not None:
                    score = event.revised_score
                onset_ns = message.utc_ns
                if onset_ns is not None:
                    length = event.sample - event.onset
                    onset_ns -= length * NS // info.sample_rate
                return Row(info, event.onset, event.sample, "", score, onset_ns)
        return None


def _utc(utc_ns: int | None) -> str | None:
    return None if utc_ns is None else utc_text(utc_ns)


def _new_table(options: TableOptions, existing: Existing) -> Table:
    """Return the table of the options' format."""
    path, content = options.path, options.content
    if options.format == "audacity":
        return AudacityTable(path, content, existing, options.apart)
    if options.format == "csv":
        return CsvTable(path, content, existing, safe=options.safe_csv)
    return TABLES[options.format](path, content, existing)


def _seconds(ticks: int, digits: int) -> str:
    """Format a time in ticks as seconds with all digits of a tick."""
    seconds, rest = divmod(abs(ticks), 10**digits)
    return f"{'-' if ticks < 0 else ''}{seconds}.{rest:0{digits}d}"


def _one_line(text: str) -> str:
    """Replace tabs and line ends, which would break the table, by spaces."""
    return " ".join(text.split()) if any(c in text for c in "\t\r\n") else text


def _check(options: TableOptions, context: BuildContext) -> Iterator[str]:
    yield from output_problems(options.path, _KINDS[options.format])
    if options.safe_csv and options.format != "csv":
        yield f"safe_csv is for CSV, not for format '{options.format}': leave it out"


def _build(options: TableOptions, context: BuildContext) -> TableSink:
    return TableSink(options, existing_policy(context))


plugin = Plugin(
    kind="sink",
    options=TableOptions,
    build=_build,
    summary="writes segments or labels as CSV, Raven or Audacity tables",
    resources=lambda options: file_claim(options.path),
    check=_check,
    writes=lambda options, context: file_access(options.path),
)
