"""Source of a benchmark: plays an array in real time and notes each hand-over.

A block is handed over when its last sample would have been recorded, or as soon after
that as the thread wakes. A lane that asks later finds it waiting, as in the ring of a
sound card: it counts as handed over when it was due.
"""

import time

import numpy as np

from neurovocal.engine import (
    Block,
    BuildContext,
    EndOfStream,
    Options,
    Plugin,
    StreamInfo,
)

NS = 1_000_000_000


class PacedOptions(Options):
    """Options of the source."""

    sound: str
    """File of samples, float32[n_samples], as `numpy.save` writes it."""
    times: str
    """File for the hand-over times in ns, int64[n_blocks]; the first is the start."""
    sample_rate: int
    """In Hz."""
    block_length: int
    """Samples per block."""


class PacedSource:
    """Source that plays an array once, in real time; nothing is lost."""

    live = False

    def __init__(self, options: PacedOptions, stream: str) -> None:
        self.info = StreamInfo(stream, options.sample_rate)
        self._options = options
        self._samples = np.load(options.sound)[:, None]
        self._times: list[int] = []
        self._position = 0
        self._began_ns = 0

    def open(self) -> None:
        """Do nothing: time begins with the first read."""

    def read(self, timeout: float) -> Block | None:
        """Return the next block when its last sample is due; None after `timeout`."""
        start = self._position
        stop = start + self._options.block_length
        if stop > len(self._samples):
            raise EndOfStream
        now = time.monotonic_ns()
        if not self._began_ns:
            self._began_ns = now
            self._times.append(now)
        due = self._began_ns + stop * NS // self.info.sample_rate
        if due > now:
            time.sleep(min((due - now) / NS, timeout))
            now = time.monotonic_ns()
            if now < due:
                return None
            due = now
        self._times.append(due)
        self._position = stop
        return Block(start, self._samples[start:stop], due)

    def close(self) -> None:
        """Write the hand-over times."""
        np.save(self._options.times, np.array(self._times, np.int64))


def _build(options: PacedOptions, context: BuildContext) -> PacedSource:
    return PacedSource(options, context.stream)


plugin = Plugin(
    kind="source",
    options=PacedOptions,
    build=_build,
    summary="plays an array in real time and notes when blocks were handed over",
)
