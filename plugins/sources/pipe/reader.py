"""Thread that reads raw PCM from a live writer into a ring."""

import os
from threading import Thread

from neurovocal.engine import NS, Clock, LiveInput
from neurovocal.engine.contracts.types import GAP_DEVICE_SLIP
from neurovocal.engine.support.platform import readable
from neurovocal.plugins.sources.pipe.pcm import PcmDecoder

_READ_BYTES = 65_536
_ROOM_POLL_S = 0.005
# Samples that come this many times as fast as the sample rate are a backlog.
_BACKLOG_SPEED = 1.5


class PipeReader(Thread):
    """Thread that decodes bytes into the ring until the writer ends or `stop`.

    Parameters
    ----------
    fd : int
        File descriptor to read from; not closed here.
    decoder : PcmDecoder
        Converts bytes to samples.
    live : LiveInput
        Its ring is written, and closed at the end; its clock follows the pace.
    clock : Clock
        Source of the monotonic time.
    backlog_timeout_s : float
        Seconds that a backlog may wait outside for room in the ring.
    """

    def __init__(
        self,
        fd: int,
        decoder: PcmDecoder,
        live: LiveInput,
        clock: Clock,
        backlog_timeout_s: float,
    ) -> None:
        super().__init__(name="nv-pipe", daemon=True)
        self._fd, self._decoder = fd, decoder
        self._live, self._clock = live, clock
        self._backlog_timeout_ns = round(backlog_timeout_s * NS)
        self._wake, self._waker = os.pipe()  # readable: stop

    def stop(self) -> None:
        """End the thread; samples in the ring can still be read. Call it once."""
        os.write(self._waker, b"x")
        self.join()
        os.close(self._wake)
        os.close(self._waker)

    def run(self) -> None:
        """Read until the writer ends or `stop`."""
        try:
            while self._wake not in readable(self._fd, self._wake):
                data = os.read(self._fd, _READ_BYTES)
                if not data:
                    return
                self._on_bytes(data)
        finally:
            self._live.ring.close()

    def _on_bytes(self, data: bytes) -> None:
        samples, ring, capture = (
            self._decoder.decode(data),
            self._live.ring,
            self._live.capture,
        )
        before, now = self._live.last_arrival_ns, self._clock.monotonic_ns()
        self._live.last_arrival_ns = now
        length_ns = len(samples) * NS // capture.sample_rate
        is_backlog = length_ns > _BACKLOG_SPEED * (now - before)
        missing = capture.update(len(samples), now - length_ns, backlog=is_backlog)
        if missing:
            ring.declare_lost(missing, GAP_DEVICE_SLIP)
        step = ring.capacity // 2 if is_backlog else len(samples)
        for first in range(0, len(samples), max(1, step)):
            part = samples[first : first + step]
            if is_backlog:
                self._wait_for_space(len(part))
            ring.write(part, now)

    def _wait_for_space(self, n_samples: int) -> None:
        """Wait until the ring has room for a backlog, up to the timeout.

        After a stall of the network, and at the start of a server's burst, more may
        come at once than the ring holds.
        """
        ring = self._live.ring
        until = self._clock.monotonic_ns() + self._backlog_timeout_ns
        while ring.counts.queued + n_samples > ring.capacity:
            if (
                readable(self._wake, timeout_s=_ROOM_POLL_S)
                or self._clock.monotonic_ns() > until
            ):
                return
