"""What is about to be heard: a ring that pieces are mixed into and a device reads.

Positions are samples of the device, counted from its start. One thread writes, the
device's callback reads; neither waits for the other. The cursors are plain integers,
each written by one side only.
"""

from typing import Any

import numpy as np

from neurovocal.engine.types import Float32


class PlaybackRing:
    """Bounded future of one channel.

    Parameters
    ----------
    capacity : int
        Samples that fit.
    guard : int
        Samples before the reader that nothing is written to any more: as many as
        the device takes at a time.

    Attributes
    ----------
    read : int
        Samples that the device has taken.
    written : int
        Position after the last sample that was ever written.
    open_until : int or None
        Where the pieces that go on go on: silence from there is an underrun. None:
        nothing goes on.
    underruns, missing : int
        How often the device found nothing, and how many samples that were.
    late : int
        Samples that came after their time and were left out.
    clipped : int
        Samples beyond [-1, 1], which the device cannot play.
    """

    def __init__(self, capacity: int, guard: int) -> None:
        self._samples = np.zeros(capacity, np.float32)
        self._guard = guard
        self.read = self.written = 0
        self.open_until: int | None = None
        self.underruns = self.missing = self.late = self.clipped = 0
        self._starved = False

    @property
    def soonest(self) -> int:
        """First position that can still be written."""
        return self.read + self._guard

    def room(self, position: int) -> int:
        """Samples that can be written at a position now."""
        return max(0, self.read + len(self._samples) - position)

    def take(self, out: Any) -> None:
        """Give the device its next samples, float32[n_samples, n_channels].

        Runs in the device's callback: copies, counts, returns.
        """
        n_samples, size = len(out), len(self._samples)
        until = self.open_until
        end = self.read + n_samples
        lack = 0 if until is None else end - max(until, self.written, self.read)
        if lack > 0:
            self.missing += lack
            self.underruns += not self._starved
            self._starved = True
        else:
            self._starved = False
        done = 0
        while done < n_samples:
            at = (self.read + done) % size
            count = min(n_samples - done, size - at)
            part = self._samples[at : at + count]
            out[done : done + count] = part[:, None]
            part[:] = 0
            done += count
        self.read += n_samples

    def mix(self, position: int, samples: Float32) -> None:
        """Add samples; they must fit (see `room`). What is late is left out."""
        skipped = min(len(samples), max(0, self.soonest - position))
        self.late += skipped
        position, samples = position + skipped, samples[skipped:]
        size, done = len(self._samples), 0
        while done < len(samples):
            at = (position + done) % size
            count = min(len(samples) - done, size - at)
            part = self._samples[at : at + count]
            part += samples[done : done + count]
            self.clipped += int(np.count_nonzero(np.abs(part) > 1))
            done += count
        self.written = max(self.written, position + len(samples))
        self._take_back(position, len(samples))

    def _take_back(self, position: int, n_samples: int) -> None:
        """Remove what the reader overtook while it was written.

        It would be heard when the ring has come round.
        """
        overtaken = min(n_samples, max(0, self.read - position))
        if overtaken:
            self.late += overtaken
            at = np.arange(position, position + overtaken) % len(self._samples)
            self._samples[at] = 0
