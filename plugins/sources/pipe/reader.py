"""Raw PCM that comes by itself: the thread that takes it into a ring."""

import os
import select
from threading import Thread

from neurovocal.engine.audio.capture_clock import CaptureClock
from neurovocal.engine.audio.ring import AudioRing
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.types import GAP_DEVICE_SLIP
from neurovocal.plugins.sources.pipe.pcm import PcmDecoder

_READ_BYTES = 65_536
_ROOM_S = 0.005
# Samples that come so many times as fast as time passes have waited somewhere.
_FASTER = 1.5


class PipeReader(Thread):
    """Bytes to samples to ring, until the writer ends or `stop`.

    Parameters
    ----------
    fd : int
        Where the bytes come from; not closed here.
    decoder : PcmDecoder
        What they are.
    ring : AudioRing
        Closed when nothing more comes.
    capture : CaptureClock
        Learns when samples came; follows their pace.
    clock : Clock
        Time.
    patience_s : float
        Seconds that a backlog may wait outside for room in the ring.

    Attributes
    ----------
    heard_at_ns : int
        Monotonic time at which bytes last came.
    """

    def __init__(
        self,
        fd: int,
        decoder: PcmDecoder,
        ring: AudioRing,
        capture: CaptureClock,
        clock: Clock,
        patience_s: float,
    ) -> None:
        super().__init__(name="nv-pipe", daemon=True)
        self._fd, self._decoder = fd, decoder
        self._ring, self._capture, self._clock = ring, capture, clock
        self._patience_ns = round(patience_s * NS)
        self._wake, self._waker = os.pipe()  # readable: stop
        self.heard_at_ns = clock.monotonic_ns()

    def stop(self) -> None:
        """End the thread; what it wrote can still be read. To be called once."""
        os.write(self._waker, b"x")
        self.join()
        os.close(self._wake)
        os.close(self._waker)

    def run(self) -> None:
        """Read until the end, or `stop`."""
        try:
            while self._wake not in select.select([self._fd, self._wake], [], [])[0]:
                data = os.read(self._fd, _READ_BYTES)
                if not data:
                    return
                self._take(data)
        finally:
            self._ring.close()

    def _take(self, data: bytes) -> None:
        samples, ring = self._decoder.decode(data), self._ring
        before, now = self.heard_at_ns, self._clock.monotonic_ns()
        self.heard_at_ns = now
        length_ns = len(samples) * NS // self._capture.sample_rate
        catches_up = length_ns > _FASTER * (now - before)
        missing = self._capture.update(
            len(samples), now - length_ns, backlog=catches_up
        )
        if missing:
            ring.lose(missing, GAP_DEVICE_SLIP)
        step = ring.capacity // 2 if catches_up else len(samples)
        for first in range(0, len(samples), max(1, step)):
            part = samples[first : first + step]
            if catches_up:
                self._wait_for_room(len(part))
            ring.write(part, now)

    def _wait_for_room(self, n_samples: int) -> None:
        """Let a backlog wait where it is, as long as the engine works it off.

        After a stall of the network, and at the start of a server's burst, more may
        come at once than the ring holds. Time passes by itself again afterwards.
        """
        until = self._clock.monotonic_ns() + self._patience_ns
        while self._ring.counts.queued + n_samples > self._ring.capacity:
            stopping = select.select([self._wake], [], [], _ROOM_S)[0]
            if stopping or self._clock.monotonic_ns() > until:
                return
