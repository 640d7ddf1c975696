"""Writes segments or labels as a table: CSV, Raven selections, Audacity labels."""

from typing import Literal

from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.timebase import NS
from neurovocal.engine.types import Label, Message, Offset, Onset
from neurovocal.plugins._output import Existing, claim, on_existing, output_problems
from neurovocal.plugins._tables import TABLES, Content, Row


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
