"""Capture times of samples, and detection of samples that a device lost silently."""

from collections import deque

from neurovocal.engine.contracts.clock import NS

_SLEW = 16
_WINDOW_NS = 2 * NS
_MIN_OBSERVATIONS = 8
_REANCHOR_NS = NS
_BURST_NS = NS // 5


class CaptureClock:
    """Map from a device's samples to the machine's monotonic clock.

    Each block brings an estimate of the time at which its first sample was captured.
    Delays of the callback make single estimates late, never early, so the smallest
    error within two seconds is the most accurate. A small error is drift: the anchor
    follows it by a sixteenth per window. A lasting one above `max_slip_ms` means that
    samples were lost without a report.

    Only the writer's thread calls `update`; `anchor` may be read by another.

    Parameters
    ----------
    sample_rate : int
        Nominal rate in Hz.
    max_slip_ms : float, optional
        Error above which samples are declared missing. None: never; an error above a
        second then only moves the anchor.
    start : int
        Stream index of the first sample.
    """

    def __init__(
        self, sample_rate: int, max_slip_ms: float | None, start: int = 0
    ) -> None:
        self.sample_rate = sample_rate
        self._max_slip_ns = None if max_slip_ms is None else round(max_slip_ms * 1e6)
        self._position = start
        self._anchor: tuple[int, int] | None = None
        self._errors: deque[int] = deque(maxlen=4096)
        self._window_end = 0
        self._settled = False
        self._burst = False  # a new connection begins with the past, all at once

    @property
    def is_known(self) -> bool:
        """True once capture times can be relied on: not while a burst settles."""
        return self._anchor is not None and not self._burst

    @property
    def anchor(self) -> tuple[int, int] | None:
        """(sample, monotonic ns at which it was captured); None before the first."""
        return self._anchor

    def expected_ns(self, sample: int) -> int:
        """Return the monotonic time at which `sample` is captured, by the anchor."""
        if self._anchor is None:
            return 0
        at, at_ns = self._anchor
        return at_ns + (sample - at) * NS // self.sample_rate

    def captured_ns(self, sample: int) -> int | None:
        """Return the monotonic time of `sample`; None before the first block."""
        return None if self._anchor is None else self.expected_ns(sample)

    def update(
        self,
        n_samples: int,
        begin_ns: int,
        broken: bool = False,
        backlog: bool = False,
    ) -> int:
        """Add a block and return the number of samples that are missing before it.

        Parameters
        ----------
        n_samples : int
            Length of the block.
        begin_ns : int
            Monotonic time at which its first sample was captured, as estimated.
        broken : bool
            The device reported a loss just before this block, or was reopened: the
            number of lost samples follows from the clock at once.
        backlog : bool
            Blocks arrive faster than in real time, because buffered ones are being
            delivered: their lateness is ignored.

        Returns
        -------
        int
            Samples missing before the block, usually 0.
        """
        missing = 0
        if self._anchor is None:
            self._anchor = (self._position, begin_ns)
            self._window_end = begin_ns + _WINDOW_NS
        error_ns = begin_ns - self.expected_ns(self._position)
        if not self._settled and (backlog or error_ns < -_BURST_NS):
            self._burst = True
            self._window_end = begin_ns + _WINDOW_NS
        if broken:
            missing = max(0, self._samples(error_ns))
            self._restart(self._position + missing, begin_ns)
        elif backlog and error_ns > 0:
            self._errors.clear()
            self._window_end = begin_ns + _WINDOW_NS
        else:
            if not self._settled and error_ns < 0:
                # The first block was late, as first blocks often are: errors are
                # counted from this block on.
                self._anchor, error_ns = (self._position, begin_ns), 0
                self._errors.clear()
            self._errors.append(error_ns)
            if begin_ns >= self._window_end and len(self._errors) >= _MIN_OBSERVATIONS:
                missing = self._follow(min(self._errors), begin_ns)
        self._position += missing + n_samples
        return missing

    def _follow(self, error_ns: int, now_ns: int) -> int:
        """Finish a window by its smallest error; return missing samples."""
        position = self._position
        slip = self._max_slip_ns
        if slip is not None and error_ns > slip:
            missing = self._samples(error_ns)
            expected_ns = self.expected_ns(position)
            self._restart(position + missing, expected_ns + error_ns)
            return missing
        first, self._settled = not self._settled, True
        self._burst = False
        limit_ns = _REANCHOR_NS if slip is None else slip
        whole = first or abs(error_ns) > limit_ns
        step_ns = error_ns if whole else error_ns // _SLEW
        self._restart(position, self.expected_ns(position) + step_ns)
        self._window_end = now_ns + _WINDOW_NS
        return 0

    def _restart(self, position: int, at_ns: int) -> None:
        self._anchor = (position, at_ns)
        self._errors.clear()
        self._window_end = at_ns + _WINDOW_NS

    def _samples(self, span_ns: int) -> int:
        return round(span_ns * self.sample_rate / NS)
