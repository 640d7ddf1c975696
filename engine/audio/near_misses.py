"""Near misses of a segmenter: sounds close to its threshold that are no segments."""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import NearMiss, NearMissReason

NEAR_DB = 6.0
# At most so many are told in a second; the others are counted.
MOST_PER_SECOND = 10


def near_level_db(on_db: float) -> float:
    """Return the lowest level of a near miss in dB above the noise floor.

    Parameters
    ----------
    on_db : float
        Threshold in dB above the noise floor. The result is 6 dB less, but at least a
        third of it: closer to the floor a sound is not to be told from the noise.
    """
    return max(on_db - NEAR_DB, on_db / 3)


def near_probability(on: float) -> float:
    """Return the probability whose odds are 6 dB (a factor of 4) below those of `on`.

    The odds p / (1 - p) of a sound are a ratio of likelihoods, as the level above the
    floor is one of powers.
    """
    ratio = 10.0 ** (-NEAR_DB / 10)
    return float(on * ratio / (1.0 - on + on * ratio))


class NearMisses:
    """Runs of scores near the threshold, and which of them are told.

    A run consists of scores that reach the lower of `near` and `off`, and of pauses
    shorter than `gap_fill`. The segmenter reports what it makes of each run; one
    without a segment is a near miss if it reached `near` and was long enough.

    Parameters
    ----------
    on, off, near : float
        Threshold of a segment, the score that it must keep, lowest score of a near
        miss.
    min_duration, gap_fill : int
        Of segments, in samples.
    second : int
        Samples in which at most `MOST_PER_SECOND` near misses are told; 0: all are.
    hop_length, origin : int
        Grid of the scores, as in `Segmenter`.

    Attributes
    ----------
    is_open : bool
        A run has begun and is not known to have ended.
    level : float
        Lowest score that matters.
    due : int
        Sample at which the run has ended if no further score belongs to it.
    """

    def __init__(
        self,
        on: float,
        off: float,
        near: float,
        min_duration: int,
        gap_fill: int,
        second: int,
        hop_length: int,
        origin: int,
    ) -> None:
        self._on, self._near = on, near
        self.level = min(near, off)
        self._min_duration, self._gap_fill = min_duration, gap_fill
        self._second = second
        self._hop, self._origin = hop_length, origin
        self.reset()

    def reset(self) -> None:
        """Return to the state of a new object."""
        self.is_open = False
        self.due = 0
        self._start = self._end = 0
        self._longest_pause = 1
        self._peak = 0.0
        self._is_explained = False  # it holds a segment, or a near miss that was short
        self._told: deque[int] = deque(maxlen=MOST_PER_SECOND)  # onsets
        self._omitted = 0
        self._last: NearMiss | None = None  # the last one that was not told

    def follow(self, on: float, min_duration: int, gap_fill: int) -> None:
        """Apply other rules of segments; the open run keeps its `gap_fill`."""
        self._on = on
        self._min_duration, self._gap_fill = min_duration, gap_fill

    def stretches(self, scores: NDArray[np.float64]) -> Iterator[tuple[int, int, bool]]:
        """Yield ``(start, stop, is_near)`` of all stretches of scores, in order."""
        near = scores >= self.level
        bounds = [0, *((near[1:] != near[:-1]).nonzero()[0] + 1).tolist(), len(near)]
        for start, stop in pairwise(bounds):
            yield start, stop, bool(near[start])

    def extend(self, start: int, stop: int, scores: NDArray[np.float64]) -> None:
        """Add scores that reach the level, for samples ``[start, stop)``, to the run.

        It begins here if none is open.
        """
        if not self.is_open:
            self.is_open, self._is_explained = True, False
            self._start, self._peak = start, -np.inf
            # Of the whole run: when `follow` is called depends on how calls are cut.
            self._longest_pause = max(self._gap_fill, 1)
        self._end = stop
        self._peak = max(self._peak, float(np.maximum.reduce(scores)))
        ended = stop + self._longest_pause - self._origin
        self.due = -(-ended // self._hop) * self._hop + self._origin

    def explain(self) -> None:
        """Note that the open run, or a part of it, has become a segment."""
        self._is_explained = True

    def add_short(self, onset: int, offset: int, score: float) -> Iterator[NearMiss]:
        """Yield the near miss to tell, if any, of a candidate that was too short."""
        self._is_explained = True
        yield from self._tell(onset, offset, score, "short")

    def close(self, scored_until: int, stop: int) -> Iterator[NearMiss]:
        """Yield the near misses to tell at the end of the audio, at sample `stop`.

        What lasted up to the last score, at `scored_until`, lasted until the end. If
        some are not told, the last of them is, with the number of the others.
        """
        if self._end >= scored_until:
            self._end = stop
        yield from self.end_run()
        if self._last is not None:
            self._omitted -= 1
            yield self._counted(self._last)

    def end_run(self) -> Iterator[NearMiss]:
        """Yield the near miss to tell, if any, of the run, which has ended."""
        if not self.is_open:
            return
        self.is_open = False
        is_long = self._end - self._start >= self._min_duration
        if self._is_explained or not is_long or self._peak < self._near:
            return
        # What reached the threshold and was no candidate lay in the silence that the
        # segmenter keeps after a segment.
        reason: NearMissReason = "soon" if self._peak >= self._on else "quiet"
        yield from self._tell(self._start, self._end, self._peak, reason)

    def _tell(
        self, onset: int, offset: int, score: float, reason: NearMissReason
    ) -> Iterator[NearMiss]:
        found = NearMiss(onset, offset, score, self._on, reason)
        full = len(self._told) == MOST_PER_SECOND
        if full and onset - self._told[0] < self._second:
            self._omitted += 1
            self._last = found
            return
        self._told.append(onset)
        yield self._counted(found)

    def _counted(self, found: NearMiss) -> NearMiss:
        omitted, self._omitted, self._last = self._omitted, 0, None
        return NearMiss(
            found.onset,
            found.offset,
            found.score,
            found.threshold,
            found.reason,
            omitted,
        )
