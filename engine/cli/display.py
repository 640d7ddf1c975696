"""Displays of a run: a live table in a terminal, plain lines elsewhere."""

import json
import sys
from collections import deque
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from neurovocal.engine.cli.run_summary import RunTally
from neurovocal.engine.cli.session import Display
from neurovocal.engine.contracts.clock import Clock, SystemClock
from neurovocal.engine.contracts.types import (
    SOURCE_STAGE,
    Gap,
    Health,
    Label,
    Message,
    NearMiss,
    Offset,
)
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.runtime.workers.lanes.running import RunningLane
from neurovocal.engine.support.repeats import Repeats, Told
from neurovocal.engine.support.text import printable

if TYPE_CHECKING:
    from neurovocal.engine.cli.drawing import TableDrawing

_KINDS = frozenset({"label", "offset", "near_miss", "gap", "health"})
_LAST_LABELS = 12
_LAST_NOTES = 4


def line_of(message: Message, *, labelled: bool) -> str | None:
    """Return a line for people, None for events that get none.

    Parameters
    ----------
    message : Message
        A label, offset, near miss, gap or health event.
    labelled : bool
        Whether segments get labels: then their offsets get no line.
    """
    rate, event = message.info.sample_rate, message.event
    where = f"{message.info.stream}  {message.sample / rate:9.3f} s"
    match event:
        case Label(status="final", offset=int(offset)):
            length_ms = (offset - event.onset) * 1000 / rate
            what = f"{event.unit:<8} {event.posterior:.2f}  {length_ms:5.0f} ms"
        case Offset() if not labelled:
            where = f"{message.info.stream}  {event.onset / rate:9.3f} s"
            what = f"segment  {(event.sample - event.onset) * 1000 / rate:5.0f} ms"
        case NearMiss():
            length_ms = (event.offset - event.onset) * 1000 / rate
            scores = f"score {event.score:.3g} of {event.threshold:.3g}"
            what = f"near miss {length_ms:5.0f} ms  too {event.reason}, {scores}"
            what += f", {event.omitted} more before it" if event.omitted else ""
        case Gap():
            what = f"gap of {event.stop - event.start} samples: {event.reason}"
        case Health():
            what = f"{event.stage} {event.state}: {event.detail}"
            if event.stage == SOURCE_STAGE and message.info.duration_s is not None:
                return printable(what)  # it names the recording, which may be another
        case _:
            return None
    return printable(f"{where}  {what}")


def _cause_of(message: Message) -> tuple[tuple[str, ...], str] | None:
    """Return place and text by which lines of one cause are known; None: each is news.

    Those are changes of health, and gaps of live audio: of a recording each gap is a
    fact about it.
    """
    event, stream = message.event, message.info.stream
    if isinstance(event, Health):
        return ("health", event.stage, event.state), f"'{stream}': {event.detail}"
    if isinstance(event, Gap) and message.emitted_ns:
        return ("gap", event.reason), f"'{stream}'"
    return None


class LineDisplay(Display):
    """A sink that prints a line for each final label, near miss, gap, change of health.

    Of repeated gaps and changes of health it prints the first and a count, as the log
    does; JSON objects are printed one by one.

    Parameters
    ----------
    labelled : bool
        Whether segments get labels; if not, a line is printed per segment.
    as_json : bool
        Print JSON objects instead of lines for people.
    to_stderr : bool
        Print to standard error, since a sink writes to standard output.
    clock : Clock, optional
        Measures for how long lines are counted; the default is the system's.
    tally : RunTally, optional
        Counts all messages, for the summary at the end.
    """

    wants = _KINDS

    def __init__(
        self,
        *,
        labelled: bool,
        as_json: bool = False,
        to_stderr: bool = False,
        clock: Clock | None = None,
        tally: RunTally | None = None,
    ) -> None:
        self._tally = tally or RunTally()
        self._stream = sys.stderr if to_stderr else sys.stdout
        self._labelled = labelled
        self._as_json = as_json
        self._clock = clock or SystemClock()
        self._repeats: Repeats[str] = Repeats()
        self._lock = Lock()

    def write(self, message: Message) -> None:
        """Print the line of a message, if it has one."""
        self._tally.add(message)
        line = line_of(message, labelled=self._labelled)
        if line is None:
            return
        if self._as_json:
            fields = msgspec.to_builtins(message.event)
            head = {"kind": message.kind, "stream": message.info.stream}
            self._print([json.dumps({**head, "seq": message.seq, **fields})])
            return
        cause = _cause_of(message)
        if cause is None:
            self._print([line])
            return
        place, text = cause
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            self._tell(self._repeats.add(line, text, now_ns, place=place))

    def draw(self) -> None:
        """Print the counts that are due."""
        with self._lock:
            self._tell(self._repeats.due(self._clock.monotonic_ns()))

    def flush(self, timeout: float) -> None:
        """Flush the lines."""
        self._stream.flush()

    def close(self) -> None:
        """Print all counts."""
        with self._lock:
            self._tell(self._repeats.flush(self._clock.monotonic_ns()))

    def _tell(self, told: Iterable[Told[str]]) -> None:
        self._print([one.message + one.note() for one in told])

    def _print(self, lines: list[str]) -> None:
        if lines:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()


class TableDisplay(Display):
    """A live table of the last labels, level, lag and segments of every lane.

    A narrow terminal shows the labels and as many other columns as there is room for.
    """

    wants = _KINDS

    def __init__(self, title: str, tally: RunTally | None = None) -> None:
        self._tally = tally or RunTally()
        self._lanes: list[RunningLane] = []
        self._title = title
        self._labels: dict[str, deque[Label]] = {}
        self._notes: dict[object, tuple[str, int]] = {}  # with times, newest last
        self._near_misses = 0
        self._near_miss = ""  # line of the newest one
        self._drawing: TableDrawing | None = None

    def watch(self, runner: Runner) -> None:
        """Show the lanes of this runner from now on."""
        self._lanes = runner.lanes

    def open(self) -> None:
        """Start to draw in the terminal."""
        from neurovocal.engine.cli.drawing import TableDrawing  # loads rich

        self._drawing = TableDrawing(self._title)
        self._drawing.start()

    def write(self, message: Message) -> None:
        """Keep a label or note for the next drawing."""
        self._tally.add(message)
        event = message.event
        if isinstance(event, Label) and event.status == "final":
            last = self._labels.setdefault(
                message.info.stream, deque(maxlen=_LAST_LABELS)
            )
            last.append(event)
        elif isinstance(event, NearMiss):
            self._near_misses += 1 + event.omitted
            self._near_miss = line_of(message, labelled=True) or ""
        elif isinstance(event, Gap | Health):
            self._note(message)

    def _note(self, message: Message) -> None:
        """Keep a gap or change of health; of one cause the newest and its count."""
        line = line_of(message, labelled=True) or ""
        key = message.info.stream, (_cause_of(message) or (line, ""))[0]
        _, times = self._notes.get(key, ("", 0))
        notes = {k: note for k, note in self._notes.items() if k != key}
        notes[key] = (line, times + 1)
        # In one step: another thread draws.
        self._notes = dict(list(notes.items())[-_LAST_NOTES:])

    def close(self) -> None:
        """Draw once more and release the terminal."""
        if self._drawing is not None:
            self.draw()
            self._drawing.stop()
            self._drawing = None

    def draw(self) -> None:
        """Draw the present state."""
        if self._drawing is None:
            return
        notes = [
            (line + (f" ({times} times)" if times > 1 else ""), "yellow")
            for line, times in self._notes.values()
        ]
        if self._near_misses:
            line = f"near misses: {self._near_misses}; {self._near_miss}"
            notes.insert(0, (line, "dim"))
        labels = {stream: list(some) for stream, some in self._labels.items()}
        self._drawing.show(self._lanes, labels, notes)
