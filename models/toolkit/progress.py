"""Progress on stderr: a bar with the time left, or plain lines without a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from neurovocal.engine.support.text import printable

ProgressCallback = Callable[[float, str], None]
_LINE_INTERVAL_S = 2.0


class Reporter:
    """Print messages and the progress of stages.

    Parameters
    ----------
    console : Console, optional
        Console to print on; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    def print_message(self, message: str) -> None:
        """Print one line; control characters of names are replaced."""
        self._console.print(printable(message), markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[ProgressCallback]:
        """Show the progress of one stage.

        Yields
        ------
        callable
            Takes the share that is done, 0 to 1, and a short note.
        """
        if not self._console.is_terminal:
            yield _Lines(self, name)
            return
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            _TimeLeft(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _Bar(progress, progress.add_task(name, total=1.0, note=""))


class _TimeLeft(ProgressColumn):
    """Time left by the whole of a stage: it grows while no progress is made."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the time left, or dashes before the first progress."""
        if not task.elapsed or not 0 < task.completed <= 1:
            return Text("-:--:--")
        left_s = round(task.elapsed * (1 - task.completed) / task.completed)
        return Text(f"{left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}")


class _Bar:
    """A progress bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def __call__(self, share: float, note: str = "") -> None:
        self._progress.update(self._task, completed=share, note=note)


class _Lines:
    """A line for each tenth that is done, at most one in `_LINE_INTERVAL_S`."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter, self._name = reporter, name
        self._tenth = 0
        self._started_s = self._printed_s = time.monotonic()

    def __call__(self, share: float, note: str = "") -> None:
        tenth, now = int(share * 10 + 1e-9), time.monotonic()
        if tenth <= self._tenth or now - self._printed_s < _LINE_INTERVAL_S:
            return
        self._tenth, self._printed_s = tenth, now
        left_s = (now - self._started_s) * (1 - share) / share
        line = f"{self._name}: {tenth * 10} %, {left_s:.0f} s left {note}"
        self._reporter.print_message(line.rstrip())
