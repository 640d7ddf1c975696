"""What live sources share: when their samples were heard, in UTC."""

from neurovocal.engine.capture_clock import CaptureClock
from neurovocal.engine.timebase import Clock
from neurovocal.engine.types import Anchor, Block, Gap

SLIP = "device slip"


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
