"""Progress for people: a bar with the time left, or plain lines without a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

ProgressCallback = Callable[[float, str], None]
_QUIET_S = 2.0


class Reporter:
    """Says on stderr what is going on.

    Parameters
    ----------
    console : Console, optional
        Where to; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    def say(self, sentence: str) -> None:
        """Print one sentence."""
        self._console.print(sentence, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[ProgressCallback]:
        """Follow one stage; the watch takes the share done and a short note."""
        if not self._console.is_terminal:
            yield _Lines(self, name)
            return
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _Bar(progress, progress.add_task(name, total=1.0, note=""))


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def __call__(self, share: float, note: str = "") -> None:
        self._progress.update(self._task, completed=share, note=note)


class _Lines:
    """A line for every tenth, but at most one every two seconds: for a log file."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter, self._name = reporter, name
        self._tenth = 0
        self._started = self._said = time.monotonic()

    def __call__(self, share: float, note: str = "") -> None:
        tenth, now = int(share * 10 + 1e-9), time.monotonic()
        if tenth <= self._tenth or now - self._said < _QUIET_S:
            return
        self._tenth, self._said = tenth, now
        left_s = (now - self._started) * (1 - share) / share
        line = f"{self._name}: {tenth * 10} %, {left_s:.0f} s left {note}"
        self._reporter.say(line.rstrip())
