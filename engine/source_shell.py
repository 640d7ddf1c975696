"""Shell of one source: an outage is a gap, positions go on across it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from threading import Event as Flag

from neurovocal.engine.errors import Disconnected, NeurovocalError
from neurovocal.engine.protocols import Source, SourceItem
from neurovocal.engine.supervise import Backoff, OnError
from neurovocal.engine.timebase import NS, Clock
from neurovocal.engine.types import Block, Gap, Health, StreamInfo

log = logging.getLogger("neurovocal")

_PAUSE_S = 0.1


class SourceShell:
    """Reads a source; opens it again when its device was lost.

    A source counts from 0 each time it is opened. Here positions go on: what
    comes after an outage is shifted by all that came before it.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    source : Source
        Not yet open.
    clock : Clock
        Measures how long an outage lasts.
    on_error : {'fail', 'skip', 'restart'}
        Whether a source that lost its device is opened again.
    stopping : Flag
        Set when nobody wants more: pauses end, and nothing is opened again.
    report : callable
        Takes the Health events of the source.
    idle : callable
        Called again and again while a lost device is waited for.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        clock: Clock,
        on_error: OnError,
        stopping: Flag,
        report: Callable[[Health], None],
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._source = source
        self._clock = clock
        self._restarts = on_error == "restart"
        self._stopping = stopping
        self._report = report
        self._idle = idle
        self._info: StreamInfo | None = None
        self._stop = 0  # samples of this stream, lost ones included
        self._shift = 0  # added to what the source counts
        self._noticed = 0

    def open(self) -> StreamInfo:
        """Open the source; the stream that it brings."""
        self._source.open()
        return self._begin(self._source.info)

    def read(self, timeout: float) -> SourceItem | None:
        """Read the next item; after an outage that is its gap.

        Raises
        ------
        Exception
            What the source raises, `Disconnected` only if it is not to restart.
        """
        try:
            item = self._source.read(timeout)
        except Disconnected as error:
            if not self._restarts:
                raise
            return self._reconnect(error)
        match item:
            case StreamInfo():
                return self._begin(item)
            case Block():
                item = replace(item, start=item.start + self._shift)
                self._stop = item.stop
            case Gap():
                item = Gap(
                    item.start + self._shift, item.stop + self._shift, item.reason
                )
                self._stop = item.stop
            case None:
                return None
            case _:
                item = replace(item, sample=item.sample + self._shift)
        return item

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _begin(self, info: StreamInfo) -> StreamInfo:
        self._show_notices()
        self._info = info
        self._stop = self._shift = 0
        return info

    def _reconnect(self, error: Disconnected) -> Gap | StreamInfo | None:
        """Open the source again, as often as it takes; None if asked to stop."""
        lost_ns = self._clock.monotonic_ns()
        self._report(Health("source", "restarting", str(error)))
        if not self._reopened():
            return None
        self._report(Health("source", "healthy", "the device is back"))
        info = self._source.info
        if info != self._info:
            return self._begin(info)  # another device: what it hears is new
        away_ns = self._clock.monotonic_ns() - lost_ns
        missing = away_ns * info.sample_rate // NS
        gap = Gap(self._stop, self._stop + missing, "device lost")
        self._stop = self._shift = gap.stop
        return gap

    def _reopened(self) -> bool:
        backoff = Backoff()
        while not self._stopping.is_set():
            self._source.close()
            until = self._clock.monotonic_ns() + round(backoff.pause_s() * NS)
            while not self._clock.wait_until(until, _PAUSE_S):
                if self._stopping.is_set():
                    return False
                self._idle()
            try:
                self._source.open()
                return True
            except NeurovocalError as failure:
                log.warning("lane '%s': %s", self._name, failure)
        return False

    def _show_notices(self) -> None:
        notices: list[str] = getattr(self._source, "notices", [])
        for notice in notices[self._noticed :]:
            log.warning("%s", notice)
        self._noticed = len(notices)
