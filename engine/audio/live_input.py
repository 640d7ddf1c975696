"""Base of live sources: a device writes to a ring, `read` takes items from it."""

from collections import deque
from collections.abc import Iterable

from neurovocal.engine.audio.capture_clock import CaptureClock
from neurovocal.engine.audio.channels import Channels
from neurovocal.engine.audio.non_finite import JoinedGaps, finite_items
from neurovocal.engine.audio.ring import AudioRing, RingCounts
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import Disconnected, EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.stages import SourceItem
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo

_SAMPLE_BYTES = 4
_MOST_BYTES = 4 * 2**30


class StaleAudioFilter:
    """Filter that drops the blocks which were buffered before capture began.

    A sound server on a busy machine starts with old samples, all at once, and goes on
    after a hole that it does not report: those samples would be dated wrong by that
    hole. Fresh samples come at the pace of the sample rate, so that the stream starts
    with the first block that came as long after the previous one as a block lasts.

    Parameters
    ----------
    sample_rate : int
        Rate of the samples in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._before_ns: int | None = None
        self._dropped = 0
        self._is_over = False

    def is_stale(self, n_samples: int, arrived_ns: int) -> bool:
        """Return True while blocks are, or may be, from before the start."""
        if self._is_over:
            return False
        before_ns, self._before_ns = self._before_ns, arrived_ns
        if before_ns is not None:
            pause = (arrived_ns - before_ns) * self._rate // NS
            # A device that never pauses is not live: after a second it is believed.
            self._is_over = 2 * pause >= n_samples or self._dropped >= self._rate
        self._dropped += n_samples
        return not self._is_over


class LiveAnchors:
    """Anchors of a live stream: one about once per second and one after each gap.

    Parameters
    ----------
    clock : Clock
        Source of the time of day.
    capture : CaptureClock
        Maps samples to the monotonic clock.
    """

    def __init__(self, clock: Clock, capture: CaptureClock) -> None:
        self._clock = clock
        self._capture = capture
        self._next = 0

    def anchor_before(self, item: Block | Gap) -> Anchor | None:
        """Return the anchor that belongs before `item`, or None if none is due.

        One is due before the first block and before the block after each gap: across
        a gap the count of samples and the time of day may have parted.
        """
        if isinstance(item, Gap):
            self._next = item.stop
            return None
        if item.start < self._next or not self._capture.is_known:
            return None
        self._next = item.start + self._capture.sample_rate
        # Both clocks are read together, so that a step of the system's clock is seen.
        utc_minus_monotonic = self._clock.utc_ns() - self._clock.monotonic_ns()
        captured_ns = self._capture.expected_ns(item.start)
        return Anchor(item.start, captured_ns + utc_minus_monotonic)


def buffer_problem(buffer_s: float, sample_rate: int, channels: int) -> str | None:
    """Return a sentence if a buffer would need more memory than is sensible."""
    needed = buffer_s * sample_rate * channels * _SAMPLE_BYTES
    if needed <= _MOST_BYTES:
        return None
    return (
        f"{buffer_s:g} s of {channels} channels at {sample_rate} Hz need "
        f"{needed / 2**30:.1f} GiB of memory: {_MOST_BYTES / 2**30:g} GiB at most"
    )


class LiveInput:
    """Ring and capture clock of a live source, from one `open` to the next.

    The device's thread writes to `ring`, updates `capture` and `last_arrival_ns`.
    `read` selects the channels, replaces samples that are not finite by gaps and
    inserts anchors.

    Parameters
    ----------
    clock : Clock
        Source of the time of day and of the monotonic time.
    channels : Channels
        Channels to select.
    sample_rate : int
        Rate of the samples in Hz.
    device_channels : int
        Columns of the ring: channels that the device delivers.
    buffer_s : float
        Seconds of audio that the ring holds.
    max_slip_ms : float, optional
        See `CaptureClock`.
    longest : int
        Most samples of one block.

    Attributes
    ----------
    last_arrival_ns : int
        Monotonic time at which samples last arrived, at first that of the opening.
    """

    def __init__(
        self,
        clock: Clock,
        channels: Channels,
        *,
        sample_rate: int,
        device_channels: int,
        buffer_s: float,
        max_slip_ms: float | None,
        longest: int,
    ) -> None:
        self.ring = AudioRing(round(buffer_s * sample_rate), device_channels)
        self.capture = CaptureClock(sample_rate, max_slip_ms)
        self.last_arrival_ns = clock.monotonic_ns()
        self._channels = channels
        self._anchors = LiveAnchors(clock, self.capture)
        self._longest = longest
        self._gaps = JoinedGaps(sample_rate)
        self._pending: deque[SourceItem] = deque()

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item, or None if none came within `timeout` seconds.

        Raises
        ------
        EndOfStream
            The ring is closed and empty.
        """
        if not self._pending:
            try:
                item = self.ring.read(self._longest, timeout)
            except EndOfStream:
                self._pending += self._gaps.flush()
                if not self._pending:
                    raise
                return self._pending.popleft()
            if item is None:
                return None
            anchor = self._anchors.anchor_before(item)
            if anchor is not None:
                self._pending.append(anchor)
            items: Iterable[Block | Gap] = [item]
            if isinstance(item, Block):
                selected = self._channels.pick(item.samples)
                items = finite_items(item.start, selected, item.arrived_ns)
            self._pending += self._gaps.process(items)
        return self._pending.popleft() if self._pending else None


class LiveSource:
    """Base of live sources: holds the `LiveInput` and answers for it.

    Parameters
    ----------
    context : BuildContext
        Gives the clock and the name of the stream.
    channels : Channels
        Channels to select.
    """

    def __init__(self, context: BuildContext, channels: Channels) -> None:
        self._clock = context.clock
        self._stream_name = context.stream
        self._channels = channels
        self._input: LiveInput | None = None

    @property
    def counts(self) -> RingCounts | None:
        """Numbers of samples since `open`, by outcome; None before live input."""
        return None if self._input is None else self._input.ring.counts

    def captured_ns(self, sample: int) -> int | None:
        """Return the monotonic time at which a sample was captured, if known."""
        return None if self._input is None else self._input.capture.captured_ns(sample)

    def _stream_info(self, sample_rate: int) -> StreamInfo:
        channels = self._channels
        return StreamInfo(
            self._stream_name, sample_rate, channels.count, channels.numbers
        )

    def _check_stall(self, name: str, timeout_s: float, hint: str = "") -> None:
        """Raise Disconnected if no sample has arrived for `timeout_s` seconds."""
        if self._input is None:
            return
        silent_s = (self._clock.monotonic_ns() - self._input.last_arrival_ns) / NS
        if silent_s > timeout_s:
            raise Disconnected(
                f"{name} has delivered nothing for {silent_s:.1f} s{hint}"
            )
