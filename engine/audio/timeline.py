"""Times of samples in UTC, from anchors, and the drift of the sample clock in ppm."""

from collections import deque
from dataclasses import replace

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import Anchor

_LATEST_NS = 4_133_980_800 * NS  # the year 2101

_JUMP_NS = NS // 2
_UNEVEN_NS = NS // 50
_SETTLING_S = 120
_MOST_DRIFT = 500  # one part in so many: 2000 ppm, ten times a bad crystal's


def is_believable(utc_ns: int) -> bool:
    """Return True for a time from 1970 to 2100, which all outputs can hold."""
    return 0 <= utc_ns < _LATEST_NS


class TimeBase:
    """Map from samples to UTC, by the newest anchor.

    Integer arithmetic throughout: no error accumulates in long runs.

    Parameters
    ----------
    sample_rate : int
        Nominal rate in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.moved_ns = 0  # step of time at the newest anchor, if it is a jump
        self._last: Anchor | None = None
        self._origin = 0  # sample from which on drift is measured
        # Anchors from which the drift may be measured, the oldest first.
        self._drift_from: deque[Anchor] = deque(maxlen=4 * _SETTLING_S)

    @property
    def anchor(self) -> Anchor | None:
        """The newest anchor; None while UTC is not known."""
        return self._last

    def add(self, anchor: Anchor) -> None:
        """Add an anchor; it determines the times of all samples from now on.

        An anchor that is more than half a second off, and more than drift explains, is
        a jump: the clock was set (a machine without a battery gets the time from the
        network), or the source jumped. Drift is then measured from this anchor.
        """
        self.moved_ns = error_ns = 0
        if self._last is not None:
            passed_ns = (anchor.sample - self._last.sample) * NS // self.sample_rate
            error_ns = anchor.utc_ns - self._last.utc_ns - passed_ns
            explained_ns = abs(passed_ns) // _MOST_DRIFT
            if abs(error_ns) > max(_JUMP_NS, explained_ns):
                self.moved_ns = error_ns
            if abs(error_ns) <= max(_UNEVEN_NS, explained_ns):
                error_ns = 0
        self._last = anchor
        self._choose_drift_start(anchor, error_ns)

    def _choose_drift_start(self, anchor: Anchor, step_ns: int) -> None:
        """Choose the anchor that drift is counted from.

        The first anchors are late, as the first blocks are, until the capture clock has
        settled: the first half of the time is left out, at most two minutes. A step of
        `step_ns`, as of a corrected clock, is no drift either: it is subtracted.
        """
        if self.moved_ns or not self._drift_from:
            self._drift_from.clear()
            self._origin = anchor.sample
        if step_ns:
            for _ in range(len(self._drift_from)):
                early = self._drift_from.popleft()
                early = replace(early, utc_ns=early.utc_ns + step_ns)
                self._drift_from.append(early)
        settling = _SETTLING_S * self.sample_rate
        elapsed = anchor.sample - self._origin
        left_out = self._origin + min(elapsed // 2, settling)
        if elapsed <= 2 * settling or not self._drift_from:
            self._drift_from.append(anchor)
        while len(self._drift_from) > 1 and self._drift_from[1].sample <= left_out:
            self._drift_from.popleft()

    def utc_ns(self, sample: int, sample_rate: int | None = None) -> int | None:
        """Return the UTC of a sample in ns; None without an anchor.

        Parameters
        ----------
        sample : int
            Stream index.
        sample_rate : int, optional
            Rate at which `sample` counts, if it is not that of the anchors.
        """
        if self._last is None:
            return None
        if sample_rate is not None and sample_rate != self.sample_rate:
            apart = sample * self.sample_rate - self._last.sample * sample_rate
            return self._last.utc_ns + apart * NS // (self.sample_rate * sample_rate)
        distance = sample - self._last.sample
        return self._last.utc_ns + distance * NS // self.sample_rate

    @property
    def drift_ppm(self) -> float:
        """Rate of the sample clock against UTC, as a deviation in parts per million.

        Measured from the anchors since the last jump, without the first two minutes;
        0.0 until there are two anchors. Positive: the sample clock is fast.
        """
        if self._last is None:
            return 0.0
        first = self._drift_from[0]
        elapsed_ns = self._last.utc_ns - first.utc_ns
        if elapsed_ns <= 0:
            return 0.0
        counted_ns = (self._last.sample - first.sample) * NS / self.sample_rate
        return (counted_ns / elapsed_ns - 1.0) * 1e6
