"""Drawing of the live table in a terminal, by rich."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from neurovocal.engine.contracts.types import Label
from neurovocal.engine.runtime.workers.lanes.running import (
    RunningChannel,
    RunningLane,
)
from neurovocal.engine.support.text import printable

_FLOOR_DB, _LOUD_DB = -60.0, -1.0
_STREAM_WIDTH, _NARROW_STREAM_WIDTH = 22, 14
# Below this width names of streams are shortened.
_WIDE = 110
_LABELS_WIDTH = 30
_PADDING = 2
# Columns beside stream and labels, by priority, with their widths: the last go first.
_COLUMNS = {
    "time": 9,
    "level": 7,
    "segments": 8,
    "lag": 7,
    "lost": 6,
    "loudness": 12,
}


class TableDrawing:
    """Table that is drawn again and again at the same place of a terminal.

    Parameters
    ----------
    title : str
        Stands above the table.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._live = Live(console=Console(), auto_refresh=False, transient=False)

    def start(self) -> None:
        """Take the terminal."""
        self._live.start()

    def stop(self) -> None:
        """Leave the last drawing, and release the terminal."""
        self._live.stop()

    def show(
        self,
        lanes: Sequence[RunningLane],
        labels: Mapping[str, Sequence[Label]],
        notes: Sequence[tuple[str, str]],
    ) -> None:
        """Draw the present state.

        Parameters
        ----------
        lanes : sequence of RunningLane
            Lanes to show.
        labels : mapping of str to sequence of Label
            Last labels of each stream, the newest last.
        notes : sequence of (str, str)
            Lines below the table, each with its style.
        """
        width = self._live.console.width
        stream_width = _STREAM_WIDTH if width >= _WIDE else _NARROW_STREAM_WIDTH
        shown = _columns_for(width - stream_width - _LABELS_WIDTH - 2 * _PADDING)
        table = Table(
            title=Text(printable(self._title)),
            title_justify="left",
            expand=True,
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, _PADDING, 0, 0),
        )
        # Fixed widths: a table that jumps with its numbers cannot be watched.
        table.add_column("stream", width=stream_width, no_wrap=True)
        table.add_column("last labels, newest first", ratio=1, no_wrap=True)
        for name in shown:
            table.add_column(name, width=_COLUMNS[name], justify="right", no_wrap=True)
        for lane in lanes:
            for channel in list(lane.channels):
                last = labels.get(channel.lane.info.stream, ())
                table.add_row(*_row(lane, channel, last, shown, stream_width))
        lines = [Text(line, style=style) for line, style in notes]
        # The terminal echoes Ctrl-C behind the last line: behind a full one it would
        # scroll, and the table would stand twice.
        self._live.update(Group(table, *lines, Text("")), refresh=True)


def _row(
    lane: RunningLane,
    channel: RunningChannel,
    labels: Sequence[Label],
    shown: Sequence[str],
    stream_width: int,
) -> tuple[str | Text, ...]:
    info = channel.lane.info
    cells: dict[str, str | Text] = {
        "time": f"{channel.lane.position / info.sample_rate:.1f} s",
        "level": _level(channel.level_db),
        "segments": str(channel.counts["offset"]),
        "lag": f"{channel.lag_ms:.0f} ms",
        "lost": str(lane.reader.lost_samples),
        "loudness": _bar(channel.level_db, _COLUMNS["loudness"]),
    }
    return (
        Text(printable(_shortened(info.stream, stream_width))),
        _units(labels),
        *(cells[name] for name in shown),
    )


def _columns_for(room: int) -> list[str]:
    """Return the columns that fit into a number of characters, by priority."""
    shown = []
    for name, width in _COLUMNS.items():
        room -= width + _PADDING
        if room < 0:
            break
        shown.append(name)
    return shown


def _units(labels: Sequence[Label]) -> Text:
    if not labels:
        return Text("")
    newest, *older = reversed(labels)
    text = Text(printable(newest.unit), style="bold green")
    text += Text(f" {newest.posterior:.2f}   ", style="dim")
    return text + Text(
        printable(" ".join(label.unit for label in older)), style="green"
    )


def _shortened(name: str, limit: int) -> str:
    return name if len(name) <= limit else "…" + name[1 - limit :]


def _bar(level_db: float, width: int) -> Text:
    filled = round(width * max(0.0, 1.0 - max(level_db, _FLOOR_DB) / _FLOOR_DB))
    bar = "█" * filled + "·" * (width - filled)
    return Text(bar, style="red" if level_db > _LOUD_DB else "green")


def _level(level_db: float) -> Text:
    text = f"{level_db:3.0f} dB" if level_db > _FLOOR_DB else "<-60 dB"
    return Text(f"{text:>7}", style="red" if level_db > _LOUD_DB else "dim")
