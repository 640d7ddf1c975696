"""Hub of the page: keeps the last minute, and queues messages for each viewer.

Engine threads add messages; each is encoded once, whatever the number of viewers.
Everything here is bounded: the kept minute, the events kept for scrolling back, and
the queue of each viewer. Of a viewer that reads too slowly the oldest columns are
dropped and counted; one that leaves too many events unread is disconnected.
"""

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Lock
from time import monotonic
from typing import NamedTuple

from neurovocal.engine import Trace
from neurovocal.plugins.web.encoding import (
    ColumnBatch,
    ColumnEvent,
    ColumnGatherer,
    FrameFormat,
    FrameScale,
    Station,
    TraceReducer,
    event_prefix,
    joined,
    message_text,
)

MINUTE_S = 60.0
# Statistics come each second, and tell what the values of frames mean.
SCALE_WAIT_S = 1.5
# Columns and events that are kept for viewers who come later.
_KEPT_COLUMN_BYTES = 64 * 2**20
_KEPT_EVENT_BYTES = 32 * 2**20
_MOST_EVENTS = 50_000
# Of these, what one viewer gets who comes late: it may never read it.
_BACKLOG_BYTES = 16 * 2**20
# What one viewer may leave unread before columns are dropped, or it is disconnected.
_QUEUED_COLUMN_BYTES = 2 * 2**20
_QUEUED_EVENT_BYTES = 8 * 2**20
_MOST_QUEUED_EVENTS = 20_000
# Each file of a folder is a stream: formats and gatherers of the newest are kept.
_MOST_STREAMS = 500
_MOST_STATES = 1000
# Repeated each second: of no use for scrolling back.
_REPEATED = frozenset({"stats", "anchor"})


class KeptEvent(NamedTuple):
    """Event of a station, as its text message.

    The header, exactly as on the wire, is ``text[start:-1]``.
    """

    ticket: int
    time_s: float
    station: str
    kind: str
    stream: str
    run: str
    seq: int
    text: str
    start: int

    @property
    def header(self) -> str:
        """Header of the event as JSON."""
        return self.text[self.start : -1]


class KeptColumns(NamedTuple):
    """Binary message with columns."""

    ticket: int
    time_s: float
    batch: ColumnBatch


class Viewer:
    """Queues of one browser; filled by any thread, emptied on the loop's.

    Parameters
    ----------
    loop : AbstractEventLoop
        Where `wait` waits.

    Attributes
    ----------
    dropped : int
        Columns that were dropped because the browser did not read in time.
    is_lost : bool
        It left too many events unread, and must be disconnected.
    wants_columns : bool
        Whether it takes columns: a hidden tab does not.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.dropped = 0
        self.is_lost = False
        self.wants_columns = True
        self.closed = False
        self._loop = loop
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._lock = Lock()
        self._backlog: deque[str | ColumnBatch] = deque()
        self._events: deque[str] = deque()
        self._columns: deque[ColumnBatch] = deque()
        self._event_bytes = self._column_bytes = 0
        self._is_woken = False

    def begin(self, backlog: Iterable[str | ColumnBatch]) -> None:
        """Queue what happened before the viewer came; it is not counted as queued."""
        self._backlog = deque(backlog)
        self._wake()

    def put_text(self, text: str) -> None:
        """Queue a text message, or mark the viewer as lost."""
        with self._lock:
            self._events.append(text)
            self._event_bytes += len(text)
            if (
                len(self._events) > _MOST_QUEUED_EVENTS
                or self._event_bytes > _QUEUED_EVENT_BYTES
            ):
                self.is_lost = True
                self._clear()
        if self.is_lost:
            self._call(self._ended)
        else:
            self._wake()

    def put_columns(self, batch: ColumnBatch) -> None:
        """Queue columns; the oldest ones make room for them."""
        if not self.wants_columns:
            return
        with self._lock:
            self._columns.append(batch)
            self._column_bytes += len(batch.data)
            while self._column_bytes > _QUEUED_COLUMN_BYTES:
                oldest = self._columns.popleft()
                self._column_bytes -= len(oldest.data)
                self.dropped += oldest.n_columns
        self._wake()

    def take(self) -> str | bytes | None:
        """Remove and return the next message to send: the past, events, columns."""
        with self._lock:
            if self._backlog:
                first = self._backlog.popleft()
                return first if isinstance(first, str) else first.data
            if self._events:
                text = self._events.popleft()
                self._event_bytes -= len(text)
                return text
            if self._columns:
                batch = self._columns.popleft()
                self._column_bytes -= len(batch.data)
                return batch.data
            self._is_woken = False
            self._ready.clear()
            return None

    async def wait(self) -> None:
        """Wait for a message."""
        await self._ready.wait()

    async def end(self) -> None:
        """Wait until the viewer is lost, or closed."""
        await self._ended.wait()

    def close(self) -> None:
        """Let the viewer's connection end."""
        self.closed = True
        self._call(self._ended)

    def _clear(self) -> None:
        self._backlog.clear()
        self._events.clear()
        self._columns.clear()
        self._event_bytes = self._column_bytes = 0

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._call(self._ready)

    def _call(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(event.set)


@dataclass(slots=True)
class _Stream:
    """State of one stream of a station."""

    frames: FrameFormat = field(default_factory=FrameFormat)
    gatherers: dict[str, ColumnGatherer] = field(default_factory=dict)
    trace: TraceReducer = field(default_factory=TraceReducer)
    sample_rate: int = 0
    has_scale: bool = False


class Hub:
    """Takes the messages of all stations and passes them to all viewers.

    Parameters
    ----------
    stations : iterable of Station
        Engines on the page.
    clock : callable
        Monotonic time in seconds.
    scale_wait_s : float
        How long the first frames of a stream wait for what `set_scale` tells of them.
    """

    def __init__(
        self,
        stations: Iterable[Station],
        clock: Callable[[], float] = monotonic,
        scale_wait_s: float = 0.0,
    ) -> None:
        self.stations = {station.id: station for station in stations}
        self._prefixes = {name: event_prefix(name) for name in self.stations}
        self._clock = clock
        self._scale_wait_s = scale_wait_s
        self._lock = Lock()
        self._viewers: set[Viewer] = set()
        self._streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()
        self._recent: deque[KeptEvent] = deque()
        self._recent_bytes = 0
        self._columns: deque[KeptColumns] = deque()
        self._column_bytes = 0
        self._events: deque[KeptEvent] = deque()
        self._event_bytes = 0
        self._states: OrderedDict[tuple[str, str, str], KeptEvent] = OrderedDict()
        self._ticket = 0

    @property
    def n_viewers(self) -> int:
        """Number of connected viewers."""
        return len(self._viewers)

    def add_event(
        self,
        station: str,
        kind: str,
        stream: str,
        run: str,
        seq: int,
        header: str,
        *,
        sample_rate: int = 0,
        state: str = "",
    ) -> None:
        """Add an event with its header as JSON, as on the wire.

        Parameters
        ----------
        station, kind, stream, run : str
            Where it comes from.
        seq : int
            Its number in its topic.
        header : str
            JSON object.
        sample_rate : int
            Rate of the stream's events in Hz; 0: this event does not tell it.
        state : str
            Name of the stage whose state it tells: late viewers get the newest one,
            however old. Empty: it tells none.
        """
        prefix = self._prefixes[station]
        text = f"{prefix}{header}}}"
        now_s = self._clock()
        with self._lock:
            self._ticket += 1
            event = KeptEvent(
                self._ticket, now_s, station, kind, stream, run, seq, text, len(prefix)
            )
            self._keep(event)
            if sample_rate:
                self._stream(station, stream).sample_rate = sample_rate
            if state:
                self._states.pop((station, stream, state), None)
                self._states[station, stream, state] = event
                if len(self._states) > _MOST_STATES:
                    self._states.popitem(last=False)
            for viewer in self._viewers:
                viewer.put_text(text)

    def set_scale(self, station: str, stream: str, scale: FrameScale) -> None:
        """Note what the values of a stream's frames mean."""
        now_s = self._clock()
        with self._lock:
            known = self._stream(station, stream)
            known.frames.set_scale(scale)
            if not known.has_scale:
                known.has_scale = True
                for gatherer in known.gatherers.values():
                    gatherer.begin_at(now_s)

    def add_columns(
        self, station: str, stream: str, run: str, sample_rate: int, event: ColumnEvent
    ) -> None:
        """Add columns; they are sent together with those that follow soon."""
        now_s = self._clock()
        with self._lock:
            known = self._stream(station, stream)
            known.sample_rate = sample_rate
            if isinstance(event, Trace):
                hop = known.frames.hop_length or sample_rate // 250
                reduced = known.trace.reduce(event, hop)
                if reduced is None:
                    return
                event = reduced
            kind = type(event).__name__.lower()
            gatherer = known.gatherers.get(kind)
            if gatherer is None:
                wait_s = 0.0 if known.has_scale else self._scale_wait_s
                gatherer = ColumnGatherer(
                    station, kind, stream, known.frames, now_s + wait_s
                )
                known.gatherers[kind] = gatherer
            self._pass_on(gatherer.add(event, run, sample_rate, now_s), now_s)

    def flush_columns(self) -> None:
        """Send the columns that wait for others, if their time has come."""
        now_s = self._clock()
        with self._lock:
            for stream in self._streams.values():
                for gatherer in stream.gatherers.values():
                    self._pass_on(gatherer.flush_due(now_s), now_s)

    def tell(self, text: str) -> None:
        """Send a text message to all viewers; it is not kept."""
        with self._lock:
            for viewer in self._viewers:
                viewer.put_text(text)

    def update_station(self, station: Station) -> None:
        """Replace what is known about a station, and tell the viewers."""
        if self.stations.get(station.id) != station:
            self.stations[station.id] = station
            self.tell(message_text("station", station=station))

    def attach(self, viewer: Viewer) -> None:
        """Give a viewer the last minute, and all messages from now on."""
        now_s = self._clock()
        with self._lock:
            self._forget(now_s)
            first = self._recent[0].ticket if self._recent else self._ticket + 1
            states = [one for one in self._states.values() if one.ticket < first]
            events, columns = list(self._recent), self._newest_columns()
            self._viewers.add(viewer)
        # A minute has thousands of small messages: fewer are read sooner.
        fewer = [
            (columns[index].ticket, batch)
            for index, batch in joined(kept.batch for kept in columns)
        ]
        past: Iterable[tuple[int, str | ColumnBatch]] = heapq.merge(
            ((event.ticket, event.text) for event in events),
            fewer,
            key=itemgetter(0),
        )
        viewer.begin([*(state.text for state in states), *(one for _, one in past)])

    def detach(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        with self._lock:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """End the connections of all viewers."""
        with self._lock:
            for viewer in self._viewers:
                viewer.close()

    def events_before(self, ticket: int | None) -> Iterator[KeptEvent]:
        """Yield the kept events before a ticket, the newest first."""
        with self._lock:
            events = list(self._events)
        for event in reversed(events):
            if ticket is None or event.ticket < ticket:
                yield event

    def sample_rate(self, station: str, stream: str) -> int:
        """Return the rate of a stream's events in Hz; 0 where it is not known."""
        with self._lock:
            known = self._streams.get((station, stream))
            return 0 if known is None else known.sample_rate

    def _stream(self, station: str, stream: str) -> _Stream:
        key = (station, stream)
        known = self._streams.get(key)
        if known is None:
            known = self._streams[key] = _Stream()
            if len(self._streams) > _MOST_STREAMS:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(key)
        return known

    def _newest_columns(self) -> list[KeptColumns]:
        """Return the newest kept columns that fit into a late viewer's backlog."""
        left = _BACKLOG_BYTES
        found = []
        for kept in reversed(self._columns):
            left -= len(kept.batch.data)
            if left < 0:
                break
            found.append(kept)
        return found[::-1]

    def _keep(self, event: KeptEvent) -> None:
        self._recent.append(event)
        self._recent_bytes += len(event.text)
        if event.kind not in _REPEATED:
            self._events.append(event)
            self._event_bytes += len(event.text)
            while (
                len(self._events) > _MOST_EVENTS
                or self._event_bytes > _KEPT_EVENT_BYTES
            ):
                self._event_bytes -= len(self._events.popleft().text)
        self._forget(event.time_s)

    def _pass_on(self, batches: list[ColumnBatch], now_s: float) -> None:
        for batch in batches:
            self._ticket += 1
            self._columns.append(KeptColumns(self._ticket, now_s, batch))
            self._column_bytes += len(batch.data)
            for viewer in self._viewers:
                viewer.put_columns(batch)
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Forget what is older than a minute, or more than fits."""
        oldest_s = now_s - MINUTE_S
        events, columns = self._recent, self._columns
        while events and (
            events[0].time_s < oldest_s or self._recent_bytes > _KEPT_EVENT_BYTES
        ):
            self._recent_bytes -= len(events.popleft().text)
        while columns and (
            columns[0].time_s < oldest_s or self._column_bytes > _KEPT_COLUMN_BYTES
        ):
            self._column_bytes -= len(columns.popleft().batch.data)
