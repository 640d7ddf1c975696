"""Progress of a scan on stderr: a line that is drawn again, or lines on a pipe."""

import sys
from collections.abc import Callable
from time import monotonic

import typer

from neurovocal.models.scan.scan import Counts

_DRAWN_S = 0.5
_FIRST_S, _MOST_S = 5.0, 60.0
_WIDTH = 79


class Progress:
    """Shows how much is done, how fast, and the time that is left.

    On a terminal one line is drawn again; elsewhere a line is printed after 5 s, and
    then after intervals that grow to a minute.
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        is_terminal: bool | None = None,
    ) -> None:
        self._clock = clock
        self._redraws = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._started = clock()
        self._next = self._started + (_DRAWN_S if self._redraws else _FIRST_S)
        self._interval = _FIRST_S
        self._is_drawn = False

    def __call__(self, counts: Counts) -> None:
        """Show the counts if it is time."""
        now = self._clock()
        if now < self._next:
            return
        line = self.line(counts)
        if self._redraws:
            sys.stderr.write(f"\r{line:<{_WIDTH}}")
            sys.stderr.flush()
            self._is_drawn = True
            self._next = now + _DRAWN_S
        else:
            typer.echo(line, err=True)
            self._interval = min(_MOST_S, self._interval * 1.5)
            self._next = now + self._interval

    def line(self, counts: Counts) -> str:
        """Return the line that is shown, of at most 79 characters."""
        elapsed = max(self._clock() - self._started, 1e-3)
        done = counts.already + counts.recordings + len(counts.later)
        text = f"{done} of {counts.total} recordings"
        if counts.threads == 0:
            return f"{text}, waiting for workers"
        if counts.audio_s:
            text += f", {_length(counts.audio_s)} of sound"
            text += f" at {counts.audio_s / elapsed:.0f} x real time"
        # What earlier runs have finished took no time of this one.
        left = counts.total_bytes - counts.bytes
        # Files without sound, such as damaged ones, tell nothing about the others.
        if counts.audio_s and counts.bytes and left > 0:
            text += f", {_length(left * elapsed / counts.bytes)} left"
        return text[:_WIDTH]

    def clear(self) -> None:
        """Remove the line that is drawn."""
        if self._is_drawn:
            sys.stderr.write(f"\r{'':<{_WIDTH}}\r")
            sys.stderr.flush()
            self._is_drawn = False


def _length(seconds: float) -> str:
    """Return a length of time with its largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
