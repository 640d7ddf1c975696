"""What live sources share: how the ring that a device fills is read, item by item."""

from collections import deque

from neurovocal.engine.audio.capture_clock import CaptureClock
from neurovocal.engine.audio.channels import Channels, finite_items
from neurovocal.engine.audio.ring import AudioRing
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.stages import SourceItem
from neurovocal.engine.contracts.types import Anchor, Block, Gap


class StaleAudioFilter:
    """Leaves out what had gathered somewhere before a device was listened to.

    A sound server on a busy machine begins with what it has kept for who knows how
    long, all at once, and goes on after a hole of which it says nothing: those samples
    would be dated wrong by that hole. Fresh ones come at the pace of sound, so that
    listening begins with the first block that has kept the one before it at a distance.

    Parameters
    ----------
    sample_rate : int
        Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._before_ns: int | None = None
        self._left_out = 0
        self._over = False

    def leaves_out(self, n_samples: int, arrived_ns: int) -> bool:
        """Whether a block is of before the start, or may be."""
        if self._over:
            return False
        before_ns, self._before_ns = self._before_ns, arrived_ns
        if before_ns is not None:
            pause = (arrived_ns - before_ns) * self._rate // NS
            # One that never pauses is not live: there is nothing to tell apart.
            self._over = 2 * pause >= n_samples or self._left_out >= self._rate
        self._left_out += n_samples
        return not self._over


class LiveAnchors:
    """Says about once a second which sample was heard when.

    Parameters
    ----------
    clock : Clock
        For the time of day.
    capture : CaptureClock
        Follows the device's clock on the monotonic one.
    """

    def __init__(self, clock: Clock, capture: CaptureClock) -> None:
        self._clock = clock
        self._capture = capture
        self._next = 0

    def before(self, item: Block | Gap) -> Anchor | None:
        """Anchor that belongs before `item`, if one is due.

        The first block has one, and the block after each gap: a gap is where a
        count of samples and the time of day may have parted.
        """
        if isinstance(item, Gap):
            self._next = item.stop
            return None
        if item.start < self._next or self._capture.anchor is None:
            return None
        self._next = item.start + self._capture.sample_rate
        # Taken together, so that a step of the system's clock is followed.
        utc_minus_monotonic = self._clock.utc_ns() - self._clock.monotonic_ns()
        heard_ns = self._capture.expected_ns(item.start)
        return Anchor(item.start, heard_ns + utc_minus_monotonic)


class LiveInput:
    """The reader's end of a live source, from one `open` to the next.

    The device's thread writes to `ring` and `capture`. Here the channels are chosen,
    gaps take the place of samples that are no numbers, and anchors are put in.

    Parameters
    ----------
    ring : AudioRing
        Of all channels that the device has.
    capture : CaptureClock
        Follows the device's clock on the monotonic one.
    channels : Channels
        Those that were asked for.
    clock : Clock
        For the time of day.
    longest : int
        Most samples of one block.
    """

    def __init__(
        self,
        ring: AudioRing,
        capture: CaptureClock,
        channels: Channels,
        clock: Clock,
        longest: int,
    ) -> None:
        self.ring = ring
        self.capture = capture
        self._channels = channels
        self._anchors = LiveAnchors(clock, capture)
        self._longest = longest
        self._waiting: deque[SourceItem] = deque()

    def read(self, timeout: float) -> SourceItem | None:
        """Return what was heard since the last call, or None after `timeout` s.

        Raises
        ------
        EndOfStream
            The ring is closed and empty.
        """
        if not self._waiting:
            item = self.ring.read(self._longest, timeout)
            if item is None:
                return None
            anchor = self._anchors.before(item)
            if anchor is not None:
                self._waiting.append(anchor)
            if isinstance(item, Block):
                chosen = self._channels.pick(item.samples)
                self._waiting += finite_items(item.start, chosen, item.arrived_ns)
            else:
                self._waiting.append(item)
        return self._waiting.popleft()
