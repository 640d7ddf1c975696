"""Source reader: supervised reads of a source; positions continue over outages."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event as Flag
from typing import Literal, TypeAlias

from neurovocal.engine.audio.timeline import is_believable
from neurovocal.engine.contracts.abilities import ReportsNotices
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import (
    Disconnected,
    EndOfStream,
    NeurovocalError,
)
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.stages import (
    CaptureTimed,
    Source,
    SourceItem,
    StreamItem,
)
from neurovocal.engine.contracts.types import (
    GAP_DEVICE_LOST,
    SOURCE_STAGE,
    Anchor,
    Block,
    Gap,
    Health,
    StreamEnd,
    StreamInfo,
)
from neurovocal.engine.support.calls import Backoff, Calls
from neurovocal.engine.support.text import plain

log = logging.getLogger("neurovocal")
SourceCondition: TypeAlias = Literal["healthy", "stalled", "recovering", "failed"]
ReportHealth: TypeAlias = Callable[[Health], None]

_STALLED_NS = 2 * NS
_BLOCKS_MISSED = 4
_ATTEMPTS = 10
# A source that is lost again sooner than this is opened after a longer pause.
_STEADY_S = 1.0

# Items that come after an outage are held for so long: the first blocks come late or
# in a burst, and only some of them together show when the first sample was captured.
_HOLD_NS = NS // 2
# As long as that estimate still moves by more than this, as while a server's burst
# comes in, they are held on, but not for ever.
_MOVED_NS = NS // 100
_HOLD_MOST_NS = 3 * NS
# Samples that are repeated after an outage are fewer than this: no server keeps more
# for clients that come late.
_REPEATED_S = 60


class SourceState:
    """``healthy``, ``stalled``, ``recovering`` or ``failed``; reports each change once.

    A program that runs or a device that is open does not show that audio arrives:
    only a sample makes a source healthy. It is *stalled* after two seconds without
    one (or four times the length of its last block), *recovering* from the moment
    its connection was lost until the first sample after, and *failed* when ten
    attempts to open it have failed (more follow) or it was given up.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    clock : Clock
        Measures silence.
    live : bool
        Time passes by itself: only then does silence matter.
    report : callable
        Publishes the Health events.
    """

    def __init__(
        self, name: str, clock: Clock, live: bool, report: ReportHealth
    ) -> None:
        self.condition: SourceCondition = "healthy"
        self.outages = 0
        self._name = name
        self._clock = clock
        self._live = live
        self._report = report
        self._last_ns = clock.monotonic_ns()
        self._patience_ns = _STALLED_NS
        self._attempts = 0
        self._has_samples = False

    def on_open(self) -> None:
        """Measure silence from now on: the source has been opened."""
        self._last_ns = self._clock.monotonic_ns()

    def on_samples(self, length_ns: int) -> int:
        """Note that a block of `length_ns` has arrived; return the monotonic time."""
        now = self._clock.monotonic_ns()
        self._has_samples = True
        if self.condition != "healthy":
            outage_s = (now - self._last_ns) / NS
            self._set_condition(
                "healthy", f"samples arrive again, after {outage_s:.1f} s"
            )
        self._last_ns = now
        self._attempts = 0
        missed_ns = _BLOCKS_MISSED * length_ns
        self._patience_ns = missed_ns if missed_ns > _STALLED_NS else _STALLED_NS
        return now

    def on_silence(self) -> None:
        """Note that a read has returned nothing."""
        if not self._live or self.condition != "healthy":
            return
        silent_ns = self._clock.monotonic_ns() - self._last_ns
        if silent_ns >= self._patience_ns:
            since = f" since {self._last_arrival()}" if self._has_samples else " yet"
            self._set_condition("stalled", f"no sample{since}")

    def on_loss(self, reason: str) -> None:
        """Note that the connection is lost, and that it will be opened again."""
        if self.condition in ("healthy", "stalled"):
            self.outages += 1
            self._set_condition("recovering", f"{reason}; {self._last_sample()}")

    def on_failed_attempt(self, reason: str, pause_s: float) -> None:
        """Note a failed attempt to open the source; the next follows in `pause_s`."""
        self._attempts += 1
        log.warning(
            "lane '%s': %s (next attempt in %.1f s)", self._name, reason, pause_s
        )
        if self._attempts == _ATTEMPTS and self.condition != "failed":
            since = f"{_ATTEMPTS} attempts failed; {self._last_sample()}"
            self._set_condition("failed", f"{reason}; {since}; it goes on being tried")

    def on_give_up(self, reason: str) -> None:
        """Note that the source will not be opened again."""
        self._set_condition("failed", f"{reason}; {self._last_sample()}")

    def _set_condition(self, condition: SourceCondition, detail: str) -> None:
        self.condition = condition
        level = logging.INFO if condition == "healthy" else logging.WARNING
        log.log(level, "lane '%s': source is %s: %s", self._name, condition, detail)
        self._report(Health(SOURCE_STAGE, condition, detail))

    def _last_sample(self) -> str:
        if not self._has_samples:
            return "no sample yet"
        return f"last sample at {self._last_arrival()}"

    def _last_arrival(self) -> str:
        """Return UTC of the last sample's arrival, and how long ago it was."""
        silent_ns = self._clock.monotonic_ns() - self._last_ns
        at_s = (self._clock.utc_ns() - silent_ns) // 1_000_000 / 1000
        text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
        return f"{text.replace('+00:00', 'Z')} ({silent_ns / NS:.1f} s ago)"


class SourceReader:
    """Reads a source; opens it again when its device was lost.

    A source counts samples from 0 each time it is opened. Here positions continue: an
    item that comes after an outage is shifted by all samples before it. An outage is
    an empty gap at once, so that open segments are closed and labelled without
    waiting for the device, and, when samples come again, a gap of the missing samples:
    from the capture of the last sample before to that of the first one after. Where
    that lies before the loss, as after the burst of the past that servers begin with,
    nothing is missing, and the samples that were read before the loss are dropped.

    `read` never waits longer than its timeout, also while the device is lost.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    source : Source
        Not yet open.
    clock : Clock
        Measures how long an outage lasts.
    on_error : {'fail', 'skip', 'restart'}
        ``restart``: a source that lost its device is opened again.
    stopping : Flag
        Set when the run ends: nothing is opened again.
    report : callable
        Publishes the Health events of the source.

    Attributes
    ----------
    position : int
        Samples of the present stream that were delivered, lost ones included.
    samples, lost_samples : int
        Samples delivered and lost in all streams.
    seconds : float
        Duration of the delivered samples in s.
    repeated : int
        Samples that were dropped because they had been read before an outage.
    delivered_ns : int
        Monotonic time at which the last block or gap was delivered.
    calls : Calls
        Read by the watchdog.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        clock: Clock,
        on_error: OnError,
        stopping: Flag,
        report: ReportHealth,
    ) -> None:
        self.name = name
        self.source = source
        self.stopping = stopping
        self.state = SourceState(name, clock, source.live, report)
        self.calls = Calls()
        self.position = 0
        self.samples = self.lost_samples = self.repeated = 0
        self.seconds = 0.0
        self.delivered_ns = clock.monotonic_ns()
        self._report = report
        self._clock = clock
        self._restarts = on_error == "restart"
        self._notices = source if isinstance(source, ReportsNotices) else None
        self._timed = source if isinstance(source, CaptureTimed) else None
        self._noticed = 0
        self._info: StreamInfo | None = None
        self._rate = 1
        self._shift = 0  # added to the positions of the source
        self._backoff = Backoff(steady_s=_STEADY_S)
        # The outage, if there is one: when the last sample before it was captured, and
        # the items that came since the source was opened again.
        self._last_ns: int | None = None
        self._loss = GAP_DEVICE_LOST  # reason of the gap of an outage
        self._is_closed = False
        self._held: deque[SourceItem] | None = None
        self._returned_ns = 0  # when the first sample after it came
        self._first_ns: int | None = None  # and when it was captured
        self._estimate_ns = self._moved_ns = 0  # newest estimate, and since when
        self._ready: deque[SourceItem] = deque()
        self._end: Exception | None = None

    def open(self) -> StreamInfo | None:
        """Open the source; return its stream, or None if it is not known yet."""
        self.source.open()
        self.state.on_open()
        self._log_notices()
        info = self._known_info()
        return None if info is None else self._begin(info)

    def resume(
        self, info: StreamInfo, position: int, last_ns: int, reason: str
    ) -> None:
        """Begin as after the loss of a device; another process read the stream so far.

        Parameters
        ----------
        info : StreamInfo
            The stream.
        position : int
            Samples of it that were delivered, lost ones included.
        last_ns : int
            Monotonic time at which the last of them came.
        reason : str
            Why the other process does not go on; that of the gap, too.
        """
        self._begin(info)
        self._loss = reason
        self.position, self._last_ns = position, last_ns
        self._held, self._is_closed = deque(), True
        self.state.on_loss(reason)

    def mark(self) -> tuple[StreamInfo, int, int] | None:
        """Return stream, position and arrival of the last sample; from any thread.

        Returns
        -------
        tuple or None
            None before the first sample. The two belong to each other to a block.
        """
        info, last_ns = self._info, self._last_ns
        return (
            None if info is None or last_ns is None else (info, self.position, last_ns)
        )

    def start(self) -> None:
        """Measure silence from now on: the first read follows."""
        self.delivered_ns = self._clock.monotonic_ns()

    def silent_ns(self) -> int:
        """Return for how long a live source has delivered nothing; else 0."""
        if not self.source.live:
            return 0
        return self._clock.monotonic_ns() - self.delivered_ns

    def read(self, timeout: float) -> StreamItem | None:
        """Return the next item; blocks of more than a second come in parts.

        An outage is an empty gap first, then its length.

        Raises
        ------
        Exception
            Errors of the source; `Disconnected` only if it is not to restart.
        """
        if self._ready:
            self.delivered_ns = self._clock.monotonic_ns()
            return self._map_to_stream(self._ready.popleft())
        if self._is_closed:
            return self._reopen(timeout)
        try:
            if self._end is not None:
                end, self._end = self._end, None
                raise end
            with self.calls:
                item = self.source.read(timeout)
        except (Disconnected, EndOfStream) as error:
            self._log_notices()
            return self._on_end(error)
        except Exception as error:
            if not self._restarts:
                raise
            return self._on_end(Disconnected(self._sentence(error)))
        if isinstance(item, Block):
            length_ns = len(item.samples) * NS // self._rate
            self.delivered_ns = self.state.on_samples(length_ns)
            if self._held is None:
                self._last_ns = item.arrived_ns or self.delivered_ns
                return self._map_block_to_stream(item)
            self._on_return(item)
        elif item is None:
            self.state.on_silence()
        if self._held is None:
            return self._map_to_stream(item)
        if item is not None:
            self._held.append(item)
        return self._end_outage()

    @property
    def is_lost(self) -> bool:
        """True while a lost device is being waited for."""
        return self._is_closed or self._held is not None

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def _known_info(self) -> StreamInfo | None:
        try:
            return self.source.info
        except RuntimeError:  # a folder in which no recording has appeared
            return None

    def _begin(self, info: StreamInfo) -> StreamInfo:
        self._log_notices()
        self._info, self._rate = info, info.sample_rate
        self.position = self._shift = 0
        self._doubted = False  # a time of the source was not used
        self._last_ns = self._held = None
        return info

    def _log_notices(self) -> None:
        notices = [] if self._notices is None else self._notices.notices
        for notice in notices[self._noticed :]:
            log.warning("%s", plain(notice))
        self._noticed = len(notices)

    # ---- positions -------------------------------------------------------------------

    def _map_to_stream(self, item: SourceItem | None) -> StreamItem | None:
        """Convert `item` to positions of the stream; None if nothing is left of it."""
        match item:
            case Block():
                return self._map_block_to_stream(item)
            case None:
                return None
            case StreamEnd():
                return item
            case StreamInfo():
                return self._begin(item)
            case Gap():
                start, stop = item.start + self._shift, item.stop + self._shift
                if stop < self.position:
                    return None
                return self._gap(max(start, self.position), stop, item.reason)
            case Health():
                item = replace(item, detail=plain(item.detail))
                log.warning("lane '%s': %s", self.name, item.detail)
                self._report(item)
                return None
            case Anchor():
                early = max(0, self.position - self._shift - item.sample)
                at_ns = item.utc_ns + early * NS // self._rate
                if not is_believable(at_ns):
                    self._doubt(at_ns)
                    return None
                return Anchor(item.sample + early + self._shift, at_ns)

    def _doubt(self, utc_ns: int) -> None:
        """Report once per stream that the source gives an impossible time."""
        if not self._doubted:
            self._doubted = True
            detail = f"its time of {utc_ns // NS} s since 1970 is not used: it is wrong"
            self._report(Health(SOURCE_STAGE, "degraded", detail))

    def _map_block_to_stream(self, block: Block) -> Block | None:
        start, samples = block.start + self._shift, block.samples
        if start < self.position:
            n_repeated = min(len(samples), self.position - start)
            self.repeated += n_repeated
            start, samples = start + n_repeated, samples[n_repeated:]
            if not len(samples):
                return None
        if len(samples) > self._rate:
            rest = start + self._rate - self._shift
            self._ready.appendleft(Block(rest, samples[self._rate :], block.arrived_ns))
            samples = samples[: self._rate]
        n_samples = len(samples)
        self.position = start + n_samples
        self.samples += n_samples
        self.seconds += n_samples / self._rate
        if samples is block.samples and start == block.start:
            return block
        return Block(start, samples, block.arrived_ns)

    def _gap(self, start: int, stop: int, reason: str) -> Gap:
        self.position = stop
        self.lost_samples += stop - start
        self.delivered_ns = self._clock.monotonic_ns()
        return Gap(start, stop, reason)

    # ---- an outage -------------------------------------------------------------------

    def _on_return(self, block: Block) -> None:
        """Note when the first sample after an outage was captured."""
        if self._first_ns is not None:
            return
        # Of the source's sample 0, which may lie before the block.
        now = block.arrived_ns or self.delivered_ns
        self._first_ns = now - block.stop * NS // self._rate
        self._returned_ns = self._clock.monotonic_ns()
        self._backoff.succeeded(self._returned_ns)

    def _on_end(self, error: Disconnected | EndOfStream) -> StreamItem | None:
        """Deliver the items held since a return before the source ends or is lost."""
        if self._first_ns is not None:
            self._end = error
            return self._release(self._first_ns)
        return self._on_loss(error)

    def _on_loss(self, error: Disconnected | EndOfStream) -> Gap | None:
        """Report that the device is lost, and open it again after a pause."""
        if isinstance(error, EndOfStream):
            raise error
        if not self._restarts:
            self.state.on_give_up(str(error))
            raise error
        silent = self._held is not None  # it was open again, but gave no sample
        if not silent:
            captured_ns = self._captured_ns(self.position - self._shift)
            self._last_ns = self._last_ns if captured_ns is None else captured_ns
        self._held, self._first_ns = deque(), None
        self._close_quietly()
        self.state.on_loss(str(error))
        self._pause(str(error) if silent else None)
        if silent:
            return None
        self._loss = GAP_DEVICE_LOST
        return self._gap(self.position, self.position, self._loss)

    def _sentence(self, error: Exception) -> str:
        """Return why a source failed; log the traceback of a plugin's own mistake."""
        if isinstance(error, NeurovocalError):
            return str(error)
        log.error("lane '%s': its source failed", self.name, exc_info=error)
        return f"{type(error).__name__}: {error}"

    def _close_quietly(self) -> None:
        try:
            self.source.close()
        except Exception:
            log.exception("lane '%s': its source failed while closing", self.name)

    def _pause(self, reason: str | None) -> None:
        pause_s = self._backoff.failed(self._clock.monotonic_ns())
        self._is_closed = True
        if reason is not None:
            self.state.on_failed_attempt(reason, pause_s)

    def _reopen(self, timeout: float) -> StreamInfo | None:
        """Open the source if the pause is over; another device is a new stream."""
        due = self._clock.wait_until(self._backoff.due_ns, timeout)
        if self.stopping.is_set() or not due:
            return None
        try:
            with self.calls:
                self.source.open()
            info = self._known_info()
        except Exception as error:
            self._close_quietly()
            self._pause(self._sentence(error))
            return None
        self._is_closed = False
        return None if info in (None, self._info) else self._begin(info)

    def _end_outage(self) -> StreamItem | None:
        """Deliver the gap once the time of the first sample is known well enough."""
        if self._first_ns is None:
            return None
        now, first_ns = self._clock.monotonic_ns(), self._captured_ns(0)
        if first_ns is not None:
            if abs(first_ns - self._estimate_ns) > _MOVED_NS:
                self._estimate_ns, self._moved_ns = first_ns, now
            held_ns = now - self._returned_ns
            if now - self._moved_ns < _HOLD_NS and held_ns < _HOLD_MOST_NS:
                return None
        return self._release(self._first_ns)

    def _release(self, first_ns: int) -> StreamItem | None:
        """Return the gap of the outage; the held items follow it."""
        assert self._held is not None
        self._ready, self._held, self._first_ns = self._held, None, None
        captured_ns = self._captured_ns(0)
        if captured_ns is not None:
            # The first anchors after the return were estimates.
            self._ready = deque(i for i in self._ready if not isinstance(i, Anchor))
            since_epoch = self._clock.utc_ns() - self._clock.monotonic_ns()
            self._ready.appendleft(Anchor(0, captured_ns + since_epoch))
            first_ns = captured_ns
        outage_ns = 0 if self._last_ns is None else first_ns - self._last_ns
        self._last_ns = self._clock.monotonic_ns()
        missing = round(outage_ns * self._rate / NS)
        least = -min(self.position, _REPEATED_S * self._rate)
        if captured_ns is None or missing < least:
            missing = max(0, missing)
        start = self.position
        gap = self._gap(start, start + max(0, missing), self._loss)
        self._shift = start + missing
        if missing < 0:
            seconds = f"the first {-missing / self._rate:.3f} s after the return"
            detail = f"{seconds} were heard before the loss: they are left out"
            log.info("lane '%s': source: %s", self.name, detail)
            self._report(Health(SOURCE_STAGE, "healthy", detail))
        return gap

    def _captured_ns(self, sample: int) -> int | None:
        return None if self._timed is None else self._timed.captured_ns(sample)
