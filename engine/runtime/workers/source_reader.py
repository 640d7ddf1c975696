"""Shell of one source: an outage is a gap, positions go on across it."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event as Flag
from typing import Literal, TypeAlias, TypeVar

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
    StreamInfo,
)
from neurovocal.engine.support.calls import Backoff, Calls

SourceCondition: TypeAlias = Literal["healthy", "stalled", "recovering", "failed"]
_STALLED_NS = 2 * NS
_BLOCKS_MISSED = 4
_ATTEMPTS = 10


class SourceState:
    """``healthy``, ``stalled``, ``recovering`` or ``failed``, each change told once.

    A program that runs or a device that is open says nothing about its audio:
    only a sample makes a source healthy. It is *stalled* after two seconds without
    one (or four times the length of its last block), *recovering* from the moment
    its connection was lost until the first sample after, and *failed* when ten
    attempts to reach it were in vain (it goes on being tried) or it was given up.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    clock : Clock
        Measures silence.
    live : bool
        Whether time passes by itself: only then does silence mean anything.
    report : callable
        Takes the Health events.
    """

    def __init__(
        self, name: str, clock: Clock, live: bool, report: Callable[[Health], None]
    ) -> None:
        self.condition: SourceCondition = "healthy"
        self.outages = 0
        self._name = name
        self._clock = clock
        self._live = live
        self._report = report
        self._heard_ns = clock.monotonic_ns()
        self._patience_ns = _STALLED_NS
        self._attempts = 0

    def opened(self) -> None:
        """Silence counts from now on: the source has been opened."""
        self._heard_ns = self._clock.monotonic_ns()

    def heard(self, block_ns: int) -> None:
        """Samples of a length of `block_ns` have arrived."""
        now = self._clock.monotonic_ns()
        if self.condition != "healthy":
            away_s = (now - self._heard_ns) / NS
            self._change("healthy", f"samples arrive again, after {away_s:.1f} s")
        self._heard_ns = now
        self._attempts = 0
        self._patience_ns = max(_STALLED_NS, _BLOCKS_MISSED * block_ns)

    def waited(self) -> None:
        """A read has brought nothing."""
        if not self._live or self.condition != "healthy":
            return
        silent_ns = self._clock.monotonic_ns() - self._heard_ns
        if silent_ns >= self._patience_ns:
            self._change("stalled", f"no sample since {self._since()}")

    def lost(self, reason: str) -> None:
        """The connection is lost, and is going to be sought."""
        if self.condition in ("healthy", "stalled"):
            self.outages += 1
            self._change("recovering", f"{reason}; last sample at {self._since()}")

    def missed(self, reason: str, pause_s: float) -> None:
        """An attempt failed; the next follows in `pause_s` seconds."""
        self._attempts += 1
        log.warning(
            "lane '%s': %s (next attempt in %.1f s)", self._name, reason, pause_s
        )
        if self._attempts == _ATTEMPTS and self.condition != "failed":
            since = f"{_ATTEMPTS} attempts failed; last sample at {self._since()}"
            self._change("failed", f"{reason}; {since}; it goes on being tried")

    def gave_up(self, reason: str) -> None:
        """The source is not opened again."""
        self._change("failed", f"{reason}; last sample at {self._since()}")

    def _change(self, condition: SourceCondition, detail: str) -> None:
        self.condition = condition
        level = logging.INFO if condition == "healthy" else logging.WARNING
        log.log(level, "lane '%s': source is %s: %s", self._name, condition, detail)
        self._report(Health(SOURCE_STAGE, condition, detail))

    def _since(self) -> str:
        """UTC of the last sample's arrival, and how long ago it was."""
        silent_ns = self._clock.monotonic_ns() - self._heard_ns
        at_s = (self._clock.utc_ns() - silent_ns) // 1_000_000 / 1000
        text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
        return f"{text.replace('+00:00', 'Z')} ({silent_ns / NS:.1f} s ago)"


log = logging.getLogger("neurovocal")
ResultT = TypeVar("ResultT")

# What comes back is held for so long: its first blocks come late or in a burst,
# and only some of them together tell when the first sample was heard.
_SETTLE_NS = NS // 2

# As long as that estimate still moves by more than this, as while a server's burst
# comes in, it is held on, but not for ever.
_MOVES_NS = NS // 100
_SETTLE_MOST_NS = 3 * NS

# What comes again after an outage and is left out is shorter than this: no server
# keeps more for those who come late.
_REPEATED_S = 60

# One that goes away again sooner than this is sought with longer and longer pauses.
_STEADY_NS = NS


class SourceReader:
    """Reads a source; opens it again when its device was lost.

    A source counts from 0 each time it is opened. Here positions go on: what
    comes after an outage is shifted by all that came before it. An outage is an
    empty gap at once, so that open segments are closed and labelled without
    waiting for the device, and, when samples come again, a gap of what is missing:
    from the capture of the last sample before to that of the first one after. Where
    that lies before the loss, as after the burst of the past that servers begin with,
    nothing is missing, and what was heard already is left out.

    `read` never waits longer than it was told to, also while the device is away.

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
        Set when nobody wants more: nothing is opened again.
    report : callable
        Takes the Health events of the source.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        clock: Clock,
        on_error: OnError,
        stopping: Flag,
        report: Callable[[Health], None],
    ) -> None:
        self.state = SourceState(name, clock, source.live, report)
        self._name = name
        self._report = report
        self._source = source
        self._clock = clock
        self._restarts = on_error == "restart"
        self._stopping = stopping
        self.calls = Calls()
        self._info: StreamInfo | None = None
        self._stop = 0  # samples of this stream, lost ones included
        self._shift = 0  # added to what the source counts
        self._noticed = 0
        self._backoff = Backoff()
        self._back_ns = 0  # when the first sample came after the last outage
        # The outage, if there is one: when the last sample before it was heard,
        # when the next attempt is due, and what came since the return.
        self._last_ns: int | None = None
        self._attempt_ns: int | None = None
        self._held: deque[SourceItem] | None = None
        self._first_ns: int | None = None
        self._estimate_ns = self._moved_ns = 0  # of the first sample; since when
        self.repeated = 0  # samples that were left out, having been heard before
        self._ready: deque[SourceItem] = deque()
        self._end: Exception | None = None

    def open(self) -> StreamInfo | None:
        """Open the source; the stream that it brings, if it is known yet."""
        self._source.open()
        self.state.opened()
        self._show_notices()
        info = self._known()
        return None if info is None else self._begin(info)

    def read(self, timeout: float) -> StreamItem | None:
        """Read the next item; an outage is an empty gap first, then its length.

        Raises
        ------
        Exception
            What the source raises, `Disconnected` only if it is not to restart.
        """
        if self._ready:
            return self._pass(self._ready.popleft())
        if self._attempt_ns is not None:
            return self._try_again(timeout)
        try:
            if self._end is not None:
                end, self._end = self._end, None
                raise end
            item = self._watched(lambda: self._source.read(timeout))
        except (Disconnected, EndOfStream) as error:
            return self._cease(error)
        except Exception as error:
            if not self._restarts:
                raise
            return self._cease(Disconnected(self._told(error)))
        if item is None:
            self.state.waited()
        elif isinstance(item, Block):
            self._hear(item)
        if self._held is None:
            return self._pass(item)
        if item is not None:
            self._held.append(item)
        return self._conclude()

    @property
    def away(self) -> bool:
        """Whether a lost device is being waited for."""
        return self._attempt_ns is not None or self._held is not None

    def _watched(self, work: Callable[[], ResultT]) -> ResultT:
        """Call the source; the watchdog notices when it does not return."""
        self.calls.entered += 1
        try:
            return work()
        finally:
            self.calls.returned += 1

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _known(self) -> StreamInfo | None:
        try:
            return self._source.info
        except RuntimeError:  # a folder in which no recording has appeared
            return None

    def _begin(self, info: StreamInfo) -> StreamInfo:
        self._show_notices()
        self._info = info
        self._stop = self._shift = 0
        self._last_ns = self._held = None
        return info

    def _hear(self, block: Block) -> None:
        assert self._info is not None
        now = block.arrived_ns or self._clock.monotonic_ns()
        n_samples = len(block.samples)
        length_ns = n_samples * NS // self._info.sample_rate
        self.state.heard(length_ns)
        if self._held is None:
            self._last_ns = now
        elif self._first_ns is None:
            # Of the source's sample 0, which may lie before the block.
            first_ns = now - block.stop * NS // self._info.sample_rate
            self._first_ns, self._back_ns = first_ns, self._clock.monotonic_ns()

    def _pass(self, item: SourceItem | None) -> StreamItem | None:
        """`item` at its place in the stream."""
        match item:
            case None:
                return None
            case StreamInfo():
                return self._begin(item)
            case Block():
                heard = min(len(item.samples), self._heard_before(item.start))
                if heard:
                    self.repeated += heard
                    item = replace(item, samples=item.samples[heard:])
                    if not len(item.samples):
                        return None
                item = replace(item, start=item.start + heard + self._shift)
                self._stop = item.stop
            case Gap():
                start, stop = item.start + self._shift, item.stop + self._shift
                if stop < self._stop:
                    return None
                item = Gap(max(start, self._stop), stop, item.reason)
                self._stop = stop
            case Health():
                log.warning("lane '%s': %s", self._name, item.detail)
                self._report(item)
                return None
            case _:
                assert self._info is not None
                early = self._heard_before(item.sample)
                at_ns = item.utc_ns + early * NS // self._info.sample_rate
                item = Anchor(item.sample + early + self._shift, at_ns)
        return item

    def _heard_before(self, sample: int) -> int:
        """Samples from the source's `sample` on that the stream has already."""
        return max(0, self._stop - self._shift - sample)

    # ---- an outage ---------------------------------------------------------------

    def _cease(self, error: Disconnected | EndOfStream) -> StreamItem | None:
        """Nothing comes any more; what came back and was held is told first."""
        if self._first_ns is not None:
            self._end = error
            return self._settle(self._first_ns)
        return self._lose(error)

    def _lose(self, error: Disconnected | EndOfStream) -> Gap | None:
        """The device went away: say so, and look for it after a pause."""
        if isinstance(error, EndOfStream):
            raise error
        if not self._restarts:
            self.state.gave_up(str(error))
            raise error
        again = self._held is not None  # it was open, but gave no sample
        if not again:
            heard_ns = self._heard_ns(self._stop - self._shift)
            self._last_ns = self._last_ns if heard_ns is None else heard_ns
            if self._clock.monotonic_ns() - self._back_ns > _STEADY_NS:
                self._backoff.succeeded()
        self._held, self._first_ns = deque(), None
        self._release()
        self.state.lost(str(error))
        self._pause(str(error) if again else None)
        return None if again else Gap(self._stop, self._stop, GAP_DEVICE_LOST)

    def _told(self, error: Exception) -> str:
        """Why a source failed; of a plugin's own mistake the log tells more."""
        if isinstance(error, NeurovocalError):
            return str(error)
        log.error("lane '%s': its source failed", self._name, exc_info=error)
        return f"{type(error).__name__}: {error}"

    def _release(self) -> None:
        try:
            self._source.close()
        except Exception:
            log.exception("lane '%s': its source failed while closing", self._name)

    def _pause(self, reason: str | None) -> None:
        pause_s = self._backoff.pause_s()
        self._attempt_ns = self._clock.monotonic_ns() + round(pause_s * NS)
        if reason is not None:
            self.state.missed(reason, pause_s)

    def _try_again(self, timeout: float) -> StreamInfo | None:
        """Open the source if the pause is over; another device is a new stream."""
        assert self._attempt_ns is not None
        due = self._clock.wait_until(self._attempt_ns, timeout)
        if self._stopping.is_set() or not due:
            return None
        try:
            self._watched(self._source.open)
            info = self._known()
        except Exception as failure:
            self._release()
            self._pause(self._told(failure))
            return None
        self._attempt_ns = None
        return None if info in (None, self._info) else self._begin(info)

    def _conclude(self) -> StreamItem | None:
        """Once the source has been heard for long enough, tell what is missing."""
        if self._first_ns is None:
            return None
        now, first_ns = self._clock.monotonic_ns(), self._heard_ns(0)
        if first_ns is not None:
            if abs(first_ns - self._estimate_ns) > _MOVES_NS:
                self._estimate_ns, self._moved_ns = first_ns, now
            held_ns = now - self._back_ns
            if now - self._moved_ns < _SETTLE_NS and held_ns < _SETTLE_MOST_NS:
                return None
        return self._settle(self._first_ns)

    def _settle(self, first_ns: int) -> StreamItem | None:
        """The outage's gap; what was held follows it, then the source itself."""
        assert self._info is not None
        assert self._held is not None
        self._ready, self._held, self._first_ns = self._held, None, None
        heard_ns = self._heard_ns(0)
        if heard_ns is not None:
            # What was said about the time at first was a guess.
            self._ready = deque(i for i in self._ready if not isinstance(i, Anchor))
            since_epoch = self._clock.utc_ns() - self._clock.monotonic_ns()
            self._ready.appendleft(Anchor(0, heard_ns + since_epoch))
            first_ns = heard_ns
        rate = self._info.sample_rate
        away_ns = 0 if self._last_ns is None else first_ns - self._last_ns
        self._last_ns = self._clock.monotonic_ns()
        missing = round(away_ns * rate / NS)
        if heard_ns is None or missing < -min(self._stop, _REPEATED_S * rate):
            missing = max(0, missing)
        gap = Gap(self._stop, self._stop + max(0, missing), GAP_DEVICE_LOST)
        self._stop, self._shift = gap.stop, self._stop + missing
        if missing < 0:
            seconds = f"the first {-missing / rate:.3f} s after the return"
            detail = f"{seconds} were heard before the loss: they are left out"
            log.info("lane '%s': source: %s", self._name, detail)
            self._report(Health(SOURCE_STAGE, "healthy", detail))
        return gap

    def _heard_ns(self, sample: int) -> int | None:
        return (
            self._source.captured_ns(sample)
            if isinstance(self._source, CaptureTimed)
            else None
        )

    def _show_notices(self) -> None:
        notices: list[str] = getattr(self._source, "notices", [])
        for notice in notices[self._noticed :]:
            log.warning("%s", notice)
        self._noticed = len(notices)
