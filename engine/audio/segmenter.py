"""Segmenter: turns one score per hop into onsets and offsets, with hysteresis."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine.audio.near_misses import NearMisses
from neurovocal.engine.contracts.clock import to_samples
from neurovocal.engine.contracts.options import DAY_MS, Options, Order
from neurovocal.engine.contracts.types import Mark, Offset, Onset
from neurovocal.engine.support.compiled import Kernel

# Marks come later by as much.
_MINUTE_MS = 60_000.0
DURATIONS = Order("min_duration_ms", "max_duration_ms", "no sound has such a length")


@dataclass(frozen=True, slots=True)
class SegmenterRules:
    """Thresholds and durations that make a run of scores a segment, in samples.

    Parameters
    ----------
    on, off : float
        A segment is a run of scores >= `off` with one score >= `on` in it.
    min_duration : int
        Shorter segments are ignored; buffers do not count.
    max_duration : int, optional
        A longer segment is truncated and the next one begins.
    gap_fill : int
        Runs that are less than this apart are one segment.
    min_silence : int
        Time after a segment in which scores are ignored.
    lookback : int
        Longest distance of an onset before the first score >= `on`.
    pre, post : int
        Buffers added to both ends, as far as neighbours leave room.
    early : bool
        Report an onset when the score reaches `on` instead of after `min_duration`:
        shorter segments are then reported, too.
    near : float, optional
        Sounds that reach this score and become no segment are reported as near misses;
        None: they are not.
    second : int
        Samples in which at most ten near misses are reported; 0: all are.
    """

    on: float
    off: float
    min_duration: int = 0
    max_duration: int | None = None
    gap_fill: int = 0
    min_silence: int = 0
    lookback: int = 0
    pre: int = 0
    post: int = 0
    early: bool = False
    near: float | None = None
    second: int = 0

    def __post_init__(self) -> None:
        if self.off > self.on:
            raise ValueError(f"off ({self.off}) must not exceed on ({self.on})")
        if self.near is not None and self.near > self.on:
            raise ValueError(f"near ({self.near}) must not exceed on ({self.on})")
        if self.max_duration is not None and self.max_duration < max(
            1, self.min_duration
        ):
            raise ValueError(
                f"max_duration ({self.max_duration}) must be positive and not less "
                f"than min_duration ({self.min_duration})"
            )

    @property
    def latency(self) -> int:
        """Largest lag of marks behind the scores, in samples, less one hop."""
        # The minimum may pass within a gap that is being filled.
        confirm = 0 if self.early else self.min_duration + self.gap_fill
        return max(self.pre + max(self.lookback, confirm), self.gap_fill, self.post)


class SegmenterOptions(Options):
    """Durations of segments, in milliseconds, as options of a detector.

    A detector adds its own options in a subclass and says in `lookback_ms`, which it
    repeats with another help text, what its scores are.
    """

    orders: ClassVar[tuple[Order, ...]] = (DURATIONS,)

    fast: ClassVar[Mapping[str, Any]] = {"early": True}
    min_duration_ms: float = Field(default=10.0, ge=0, le=_MINUTE_MS)
    """Shorter sounds are ignored."""
    max_duration_ms: float = Field(default=5000.0, gt=0, le=DAY_MS)
    """A longer sound is closed as truncated and a new segment begins."""
    gap_fill_ms: float = Field(default=6.0, ge=0, le=_MINUTE_MS)
    """Sounds that are less than this apart are one segment."""
    min_silence_ms: float = Field(default=0.0, ge=0, le=_MINUTE_MS)
    """For so long after a segment no new one begins."""
    pre_ms: float = Field(default=0.0, ge=0, le=_MINUTE_MS)
    """Buffer before each segment."""
    post_ms: float = Field(default=0.0, ge=0, le=_MINUTE_MS)
    """Buffer after each segment; its offset is reported that much later."""
    lookback_ms: float = Field(default=10.0, ge=0, le=_MINUTE_MS)
    """How far before the score reached its threshold an onset may lie."""
    early: bool = False
    """Tell onsets before `min_duration_ms` has passed; short sounds are then
    told, too."""
    near_misses: bool = False
    """Tell sounds, too, that came within 6 dB of the threshold and became no
    segment, as events of the kind `near_miss`; at most ten in a second, the others
    are counted."""

    def rules(
        self, on: float, off: float, sample_rate: int, near: float | None = None
    ) -> SegmenterRules:
        """Convert the durations to samples and add the thresholds of the score.

        Parameters
        ----------
        on, off : float
            Thresholds.
        sample_rate : int
            In Hz.
        near : float, optional
            Lowest score of a near miss, should they be told: 6 dB below `on`; by
            default `off`.
        """
        return SegmenterRules(
            on=on,
            off=off,
            min_duration=to_samples(self.min_duration_ms, sample_rate),
            max_duration=max(1, to_samples(self.max_duration_ms, sample_rate)),
            gap_fill=to_samples(self.gap_fill_ms, sample_rate),
            min_silence=to_samples(self.min_silence_ms, sample_rate),
            lookback=to_samples(self.lookback_ms, sample_rate),
            pre=to_samples(self.pre_ms, sample_rate),
            post=to_samples(self.post_ms, sample_rate),
            early=self.early,
            near=(off if near is None else near) if self.near_misses else None,
            second=sample_rate,
        )


class Segmenter:
    """Converter of scores to onsets and offsets, each as soon as it is known.

    Every onset is followed by exactly one offset; segments never overlap. The marks
    depend on the scores alone, not on how they are divided into calls. Near misses come
    between them, when their end is known, and change nothing about them.

    Parameters
    ----------
    rules : SegmenterRules
        Thresholds and durations.
    hop_length : int
        Samples per score.
    origin : int
        Score k covers samples
        ``[k * hop_length + origin, (k + 1) * hop_length + origin)``.
    adapt : callable, optional
        Called after each segment with its duration in samples and its largest score;
        returns the rules for what follows, in which only `on`, `min_duration` and
        `gap_fill` may differ from `rules`.

    Notes
    -----
    The cost grows with the number of crossings of the lower threshold.
    """

    def __init__(
        self,
        rules: SegmenterRules,
        hop_length: int,
        origin: int = 0,
        adapt: Callable[[int, float], SegmenterRules] | None = None,
    ) -> None:
        self.rules = self._first_rules = rules
        self._adapt = adapt
        self._loudest = -math.inf  # score of the candidate segment
        self._hop = hop_length
        self._origin = origin
        # Longest duration of the candidate segment.
        self._longest = math.inf if rules.max_duration is None else rules.max_duration
        self._start: int | None = None  # first sample of the candidate segment
        self._end = 0  # sample after its last score >= off
        self._near: NearMisses | None = None
        if rules.near is not None:
            durations = (rules.min_duration, rules.gap_fill, rules.second)
            self._near = NearMisses(
                rules.on, rules.off, rules.near, *durations, hop_length, origin
            )
        self.reset()

    def reset(self) -> None:
        """Return to the state of a new object; segments count from 0 again."""
        self._segment = 0
        if self._near is not None:
            self._near.reset()
        self._follow(self._first_rules)
        self._clear(0)

    def begin(self, sample: int) -> None:
        """Start at `sample`, after a gap: no mark will lie before it."""
        self._clear(sample)

    # ---- for callers that leave out calls without marks ------------------------------

    @property
    def is_idle(self) -> bool:
        """True if scores below `least_score` would cause nothing."""
        return self._start is None and (self._near is None or not self._near.is_open)

    @property
    def least_score(self) -> float:
        """Lowest score that matters while it is idle."""
        near = self._near
        return self.rules.off if near is None else min(near.level, self.rules.off)

    @property
    def sounds_until(self) -> float:
        """Sample up to which scores of at least `off` would cause no mark; 0: none.

        A segment has been reported then, and the last score belongs to it.
        """
        if not self._is_reported or self._end != self._scored_until:
            return 0
        assert self._start is not None
        return self._start + self._longest

    @property
    def earliest_mark(self) -> float:
        """Sample up to which there is no mark, whatever the scores are.

        While near misses are told it is the last one that was scored.
        """
        if self._near is not None:
            return self._scored_until
        if self._is_reported:
            assert self._start is not None
            ends = self._end + max(self.rules.gap_fill, 1)
            return min(ends, self._start + self._longest)
        start = self._scored_until if self._start is None else self._start
        return start + (0 if self.rules.early else self.rules.min_duration)

    def sample_of(self, hop: int) -> int:
        """Return the first sample of a score."""
        return self._sample(hop)

    def skip_silence(self, until: int) -> None:
        """Take low scores as processed up to sample `until`, while it is idle."""
        self._add_silence(until, [])

    def skip_sound(self, until: int, loudest: float) -> None:
        """Take scores of at least `off` as processed up to sample `until`.

        Parameters
        ----------
        until : int
            Before `sounds_until`.
        loudest : float
            The largest of the scores.
        """
        if self._near is not None:
            self._near.extend(self._end, until, np.array([loudest]))
            self._near.explain()
        self._loudest = max(self._loudest, loudest)
        self._end = self._scored_until = until

    def process(self, first: int, scores: NDArray[np.float64]) -> list[Mark]:
        """Return the marks known after scores ``first, first + 1, ...``.

        Parameters
        ----------
        first : int
            Index of the first score; calls must follow each other without holes.
        scores : float64[n]
            Any measure that is larger where there is sound.
        """
        marks: list[Mark] = []
        if len(scores) == 0:
            return marks
        parts: Iterable[tuple[int, int, bool]] = [(0, len(scores), False)]
        if self._near is not None:
            parts = self._near.stretches(scores)
        for start, stop, is_near in parts:
            part, first_of_part = scores[start:stop], first + start
            if self._near is not None:
                self._add_near(first_of_part, part, is_near, marks)
            on = self.rules.on
            for begin, end, first_on in _runs(part, self.rules.off, on):
                hop, sample = first_of_part + begin, self._sample(first_of_part + begin)
                self._add_silence(sample, marks)
                if self.rules.on != on:  # a segment ended, and other rules follow
                    first_on = None
                self._add_run(hop, sample, part[begin:end], first_on, marks)
            self._add_silence((first + stop) * self._hop + self._origin, marks)
        return marks

    def _add_near(
        self, first: int, scores: NDArray[np.float64], is_near: bool, marks: list[Mark]
    ) -> None:
        """Extend the near miss by scores ``first, ...``, or end it if they are low."""
        assert self._near is not None
        sample, end = self._sample(first), self._sample(first + len(scores))
        if is_near:
            self._near.extend(max(sample, self._floor), end, scores)
            if self._is_reported:
                self._near.explain()
        elif self._near.is_open and self._near.due <= end:
            # Marks that are known by then come first.
            self._add_silence(self._near.due, marks)
            marks += self._near.end_run()

    def close(self, stop: int) -> list[Mark]:
        """Truncate an open segment at sample `stop`, where the audio ends."""
        marks: list[Mark] = []
        if self._start is not None:
            if self._end >= self._scored_until:
                self._end = stop  # the sound lasted until the end
            self._report_onset_if_due(stop, marks)
            if self._is_reported:
                self._finish(min(self._end + self.rules.post, stop), True, marks)
            else:
                self._reject(marks)
        if self._near is not None:
            marks += self._near.close(self._scored_until, stop)
        self._clear(stop)
        return marks

    def _clear(self, sample: int) -> None:
        self._floor = sample  # no mark may lie before it
        self._ignored_until = 0
        self._scored_until = sample
        self._start = None
        self._end = sample
        self._reached_on = False
        self._is_reported = False
        self._continues = False  # the last segment was cut by the maximum duration
        self._is_rest = False  # the candidate is the rest of such a one
        self._onset = sample
        self._peak = 0.0

    def _sample(self, hop: int) -> int:
        return hop * self._hop + self._origin

    def _add_silence(self, until: int, marks: list[Mark]) -> None:
        """Extend the silence after the last run of scores up to sample `until`."""
        self._scored_until = until
        if until > self._end:
            self._continues = False
        if self._start is None or until == self._end:
            return
        if until - self._end < self.rules.gap_fill:
            return
        if not self._is_reported:
            self._reject(marks)
        elif until - self._end >= self._close_after:
            self._finish(self._end + self.rules.post, False, marks)

    def _add_run(
        self,
        hop: int,
        start: int,
        scores: NDArray[np.float64],
        first_on: int | None,
        marks: list[Mark],
    ) -> None:
        """Add a run of scores that reach `off`; cut it where segments end within it.

        `first_on` is the first of them that reaches `on`; -1 if none does, None if it
        is not known.
        """
        on = self.rules.on
        if self._is_reported and start - self._end >= max(self.rules.gap_fill, 1):
            # The sound resumed within the buffer after the segment.
            self._finish(min(self._end + self.rules.post, start), False, marks)
        if (
            self._start is not None
            and self._is_reported
            and start - self._start >= self._longest
        ):
            # Reached within a filled gap.
            self._finish(self._end, True, marks)
        if start < self._ignored_until:
            skip = min(-(-(self._ignored_until - start) // self._hop), len(scores))
            hop, scores = hop + skip, scores[skip:]
            first_on = None
        if self.rules.on != on:
            first_on = None
        while len(scores):
            taken = self._extend(hop, scores, first_on, marks)
            hop, scores, first_on = hop + taken, scores[taken:], None

    def _extend(
        self,
        hop: int,
        scores: NDArray[np.float64],
        first_on: int | None,
        marks: list[Mark],
    ) -> int:
        """Extend the candidate; return the number of scores that belong to it."""
        if self._start is None:
            self._start = max(self._sample(hop), self._floor)
            self._end = self._start
            self._reached_on, self._continues = self._continues, False
            self._is_rest = self._reached_on
            self._peak = 0.0
            self._loudest = -math.inf
        if self._reached_on:
            first_on = 0
        elif first_on is None:
            first_on = _first_from(scores, self.rules.on)
        count = self._remaining_scores(hop, len(scores), first_on)
        if self._adapt is not None:
            loudest = float(np.maximum.reduce(scores[:count]))
            self._loudest = max(self._loudest, loudest)
        if not self._is_reported:
            self._confirm(hop, scores[:count], first_on, marks)
        self._end = (hop + count) * self._hop + self._origin
        if self._is_reported and self._end - self._start >= self._longest:
            self._finish(self._end, True, marks)
            self._continues = True
        return count

    def _remaining_scores(self, hop: int, n_scores: int, first_on: int) -> int:
        """Return how many scores the maximum duration leaves room for, at least 1."""
        if self.rules.max_duration is None or self._start is None:
            return n_scores
        start = self._start
        if not self._reached_on:
            # Counting starts where sound begins, which is not known before `on`.
            if first_on < 0:
                return n_scores
            start = max(start, self._sample(hop + first_on) - self.rules.lookback)
        last = start + self.rules.max_duration - self._origin
        return min(max(-(-last // self._hop) - hop, 1), n_scores)

    def _confirm(
        self, hop: int, scores: NDArray[np.float64], first_on: int, marks: list[Mark]
    ) -> None:
        """Report the onset at the first score at which it is certain."""
        assert self._start is not None
        if not self._reached_on:
            if not 0 <= first_on < len(scores):
                return
            self._reached_on = True
            self._start = max(
                self._start, self._sample(hop + first_on) - self.rules.lookback
            )
        least = 0 if self.rules.early else self.rules.min_duration
        due = -(-(self._start + least - self._origin) // self._hop) - 1 - hop
        due = max(due, first_on)
        counted = scores[first_on : due + 1]
        self._peak = max(self._peak, float(np.maximum.reduce(counted, initial=0)))
        if due < len(scores):
            self._report_onset(marks)

    def _report_onset_if_due(self, stop: int, marks: list[Mark]) -> None:
        """Report an onset that the end of the audio confirms."""
        assert self._start is not None
        lasted = min(self._end, stop) - self._start
        is_long = lasted >= self.rules.min_duration
        if self._reached_on and not self._is_reported and is_long:
            self._report_onset(marks)

    def _report_onset(self, marks: list[Mark]) -> None:
        assert self._start is not None
        self._onset = max(self._start - self.rules.pre, self._floor)
        self._is_reported = True
        if self._near is not None:
            self._near.explain()
        marks.append(Onset(self._segment, self._onset, self._peak))

    def _finish(self, offset: int, truncated: bool, marks: list[Mark]) -> None:
        """Close the candidate, whose onset was reported, with an offset."""
        marks.append(Offset(self._segment, self._onset, offset, truncated))
        self._segment += 1
        self._floor = offset
        if not truncated:
            self._ignored_until = self._end + self.rules.min_silence
        if self._adapt is not None and self._start is not None:
            self._follow(self._adapt(self._end - self._start, self._loudest))
        self._start = None
        self._is_reported = False

    def _follow(self, rules: SegmenterRules) -> None:
        """Apply other thresholds and durations from the next segment on."""
        self.rules = rules
        # Silence after which a segment is closed.
        self._close_after = max(rules.gap_fill, rules.post)
        if self._near is not None:
            self._near.follow(rules.on, rules.min_duration, rules.gap_fill)

    def _reject(self, marks: list[Mark]) -> None:
        """Drop the candidate, which has become no segment."""
        assert self._start is not None
        if self._near is not None and self._reached_on and not self._is_rest:
            marks += self._near.add_short(self._start, self._end, self._peak)
        self._start = None


def _runs(
    scores: NDArray[np.float64], off: float, on: float
) -> Iterable[tuple[int, int, int | None]]:
    """Return the runs of scores that reach `off`.

    Returns
    -------
    list of tuple
        First score, end, and the first score within the run that reaches `on`, counted
        from its beginning; -1 if none does, None if it was not sought.
    """
    kernel = _KERNEL.call
    # Scores of another type, as plugins may give them, are compared as they are.
    if kernel is not None and scores.dtype == np.float64:
        return _compiled_runs(kernel, scores, off, on)
    return _plain_runs(scores, off)


def _plain_runs(
    scores: NDArray[np.float64], off: float
) -> list[tuple[int, int, int | None]]:
    above = scores >= off
    if not np.logical_or.reduce(above):
        return []
    bounds = ((above[1:] != above[:-1]).nonzero()[0] + 1).tolist()
    if above[0]:
        bounds.insert(0, 0)
    if above[-1]:
        bounds.append(len(above))
    return [(*run, None) for run in zip(bounds[::2], bounds[1::2], strict=True)]


def _first_from(scores: NDArray[np.float64], on: float) -> int:
    """Return the first score that reaches `on`; -1 if none does."""
    reached = scores >= on
    first = int(reached.argmax())
    return first if reached[first] else -1


def _compiled_runs(
    kernel: Callable[..., int], scores: NDArray[np.float64], off: float, on: float
) -> list[tuple[int, int, int]]:
    runs = np.empty((len(scores) // 2 + 1, 3), np.int64)
    count = kernel(scores, off, on, runs)
    found: list[tuple[int, int, int]] = runs[:count].tolist()  # lists of three
    return found


def _is_equal(kernel: Callable[..., int]) -> bool:
    """Return whether the compiled kernel finds the runs that NumPy finds."""
    scores = np.random.default_rng(0).uniform(0, 3, 500)
    scores[100:200] += 1.0
    scores[300] = np.nan
    for part in (scores, scores[120:], scores[-1:]):
        found = _compiled_runs(kernel, part, 1.5, 2.5)
        expected = [
            (start, stop, _first_from(part[start:stop], 2.5))
            for start, stop, _ in _plain_runs(part, 1.5)
        ]
        if [tuple(run) for run in found] != expected:
            return False
    return True


_KERNEL = Kernel("neurovocal.engine.audio.kernels", "find_runs", _is_equal)
