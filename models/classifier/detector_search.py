"""Detector options that find what the annotators found.

Annotators cut sounds by their own rules: how quiet a gap ends a syllable, how short
a sound is none. The options of the detector are chosen on annotated recordings, so
that the engine's final labels agree best with the annotation.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from neurovocal.engine.contracts.bundle import ClassifierSpec, DetectorSpec, FrontEnd
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Float32, Offset, StreamInfo
from neurovocal.models.classifier.calibration import Float64
from neurovocal.models.data.frames import LabelledFrames, first_frame, read_samples
from neurovocal.models.toolkit.measures import (
    IGNORED,
    ErrorCount,
    edit_distance,
    frame_errors,
)
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.plugins.models.classifier.decision import Decision

# Other starts, for sounds with quiet stretches inside, such as words, and for
# recordings that begin in a sound.
START_OPTIONS: tuple[dict[str, Any], ...] = (
    {"gap_fill_ms": 30.0, "min_duration_ms": 20.0, "settle_s": 0.1},
    {
        "gap_fill_ms": 200.0,
        "min_duration_ms": 50.0,
        "smooth_ms": 10.0,
        "lookback_ms": 100.0,
        "settle_s": 0.1,
        "least_floor_db": -55.0,
    },
)
# What is tried, one option after another. `above_off_db` stands for on_db - off_db.
CANDIDATE_VALUES: dict[str, tuple[Any, ...]] = {
    "off_db": (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0),
    "above_off_db": (0.0, 1.0, 2.0, 4.0, 6.0, 10.0),
    "gap_fill_ms": (2.0, 4.0, 6.0, 8.0, 12.0, 20.0, 30.0, 60.0, 120.0, 200.0),
    "hop_ms": (0.5, 1.0),
    "smooth_ms": (2.0, 3.0, 5.0, 10.0),
    "min_duration_ms": (5.0, 10.0, 15.0, 20.0, 30.0, 50.0),
    "pre_ms": (0.0, 2.0, 5.0, 10.0),
    "post_ms": (0.0, 2.0, 5.0, 10.0, 20.0),
}
DEFAULTS = {"on_db": 10.0, "off_db": 8.0}
# An option leaves its value for at least so many percent of error: less is the luck
# of a few segments.
MIN_IMPROVEMENT = 0.05
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """How far final labels are from the annotation."""

    frames: ErrorCount
    syllables: ErrorCount

    def __add__(self, other: "LabelErrors") -> "LabelErrors":
        """Pool two."""
        return LabelErrors(self.frames + other.frames, self.syllables + other.syllables)

    @property
    def error(self) -> float:
        """Frame and syllable error, summed, in percent."""
        return (self.frames.percent or 0.0) + (self.syllables.percent or 0.0)


@dataclass(eq=False)
class ScoredRecording:
    """A recording with what the classifier said of its frames.

    Parameters
    ----------
    example : LabelledFrames
    log_posteriors : float64[n_frames, n_units]
        Silence is column 0.
    front_end : FrontEnd
    spec : ClassifierSpec
        How labels are decided.
    """

    example: LabelledFrames
    log_posteriors: Float64
    front_end: FrontEnd
    spec: ClassifierSpec
    sums: Float64 = field(init=False)

    def __post_init__(self) -> None:
        rows = self.log_posteriors
        self._decide = Decision(self.spec)
        self.sums = np.concatenate([np.zeros((1, rows.shape[1])), rows.cumsum(axis=0)])

    @cached_property
    def samples(self) -> Float32:
        """The recording itself."""
        return read_samples(self.example.recording, self.front_end.sample_rate)

    def label_errors(self, segments: Sequence[tuple[int, int]]) -> LabelErrors:
        """Errors when these segments, ``[onset, offset)`` in samples, are labelled.

        An `unknown` is no label, and paints no frame.
        """
        target = self.example.target
        painted = np.zeros(len(target), np.int64)
        found = []
        for onset, offset in segments:
            first, stop = self._frames(onset), self._frames(offset)
            if stop <= first:
                continue
            evidence = self.sums[stop] - self.sums[first]
            if self.spec.decision == "last":
                evidence = self.log_posteriors[stop - 1]
            name, _ = self._decide(evidence, n_frames=stop - first)
            if name == self.spec.unknown:
                continue
            unit = self.spec.units.index(name)
            painted[first:stop] = unit
            if target[(first + stop - 1) // 2] != IGNORED:
                found.append(unit)
        reference = [span.unit for span in self.example.spans]
        edits = edit_distance(reference, found)
        return LabelErrors(
            frame_errors(target, painted), ErrorCount(edits, len(reference))
        )

    def _frames(self, sample: int) -> int:
        fe, n = self.front_end, len(self.log_posteriors)
        return min(max(first_frame(sample, fe.hop_length, fe.frame_length), 0), n)


def fit_detector(
    heard: Sequence[ScoredRecording],
    start: dict[str, Any],
    watch: ProgressCallback = lambda share, note: None,
    stop: Callable[[], None] = lambda: None,
    patience_s: float = math.inf,
) -> DetectorSpec:
    """Options of the `energy` detector under which labels agree best.

    A coordinate search from a few starts: `start` wins where nothing is worth
    leaving it for.

    Parameters
    ----------
    heard : sequence of ScoredRecording
        Recordings of the training and validation splits.
    start : dict
        Options where the search begins.
    watch : callable
        Told the share that is done.
    stop : callable
        Called between two tries; raises to end the search.
    patience_s : float
        Wall-clock seconds after which the best options so far are taken.

    Returns
    -------
    DetectorSpec
        With the options that differ from the plugin's defaults.
    """
    ends_at = time.monotonic() + patience_s
    return _Search(heard, watch, stop, ends_at).best(start)


def select_evenly(
    examples: Sequence[LabelledFrames], limit_s: float
) -> list[LabelledFrames]:
    """Recordings of about `limit_s` seconds in all, evenly from the list."""
    total = sum(example.recording.part_duration_s for example in examples)
    share = min(1.0, limit_s / total) if total else 1.0
    kept, due = [], 0.0
    for one in examples:
        due += share
        if due >= 1.0 - 1e-9:
            kept.append(one)
            due -= 1.0
    return kept or list(examples[:1])


class _Search:
    def __init__(
        self,
        heard: Sequence[ScoredRecording],
        watch: ProgressCallback,
        stop: Callable[[], None],
        ends_at: float,
    ) -> None:
        self._heard, self._watch, self._stop = heard, watch, stop
        self._ends_at = ends_at
        self._plugin = Registry().get("detector", "energy")
        self._known: dict[tuple[tuple[str, Any], ...], float] = {}
        self._tries = len(START_OPTIONS) + ROUNDS * sum(
            len(v) for v in CANDIDATE_VALUES.values()
        )

    def best(self, start: dict[str, Any]) -> DetectorSpec:
        options = min(START_OPTIONS, key=self._error)
        if self._error(start) < self._error(options) + MIN_IMPROVEMENT:
            options = start
        for _ in range(ROUNDS):
            before = options
            for name, values in CANDIDATE_VALUES.items():
                options = self._step(options, name, values)
            if options == before:
                break
        return DetectorSpec(plugin="energy", options=options)

    def _step(
        self, options: dict[str, Any], name: str, values: Sequence[Any]
    ) -> dict[str, Any]:
        """The best value of one option, the others as they are."""
        if time.monotonic() > self._ends_at:
            return options
        tried = [_changed(options, name, value) for value in values]
        chosen = min(tried, key=self._error)
        worth = self._error(chosen) < self._error(options) - MIN_IMPROVEMENT
        return chosen if worth else options

    def _error(self, options: dict[str, Any]) -> float:
        key = tuple(sorted(options.items()))
        if key not in self._known:
            self._stop()
            self._known[key] = self._measure(options)
            self._watch(min(1.0, len(self._known) / self._tries), "")
        return self._known[key]

    def _measure(self, options: dict[str, Any]) -> float:
        rate = self._heard[0].front_end.sample_rate
        context = BuildContext(
            clock=SystemClock(), run="training", info=StreamInfo("training", rate)
        )
        checked = self._plugin.options.model_validate(options)
        try:
            detector = self._plugin.build(checked, context)
        except ConfigError:  # options that contradict each other or the rate
            return float("inf")
        total = LabelErrors(ErrorCount(), ErrorCount())
        for one in self._heard:
            marks = [*detector.process(Block(0, one.samples[:, None]))]
            marks += detector.flush()
            detector.reset()
            total += one.label_errors(
                [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]
            )
        return total.error


def _changed(options: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Options with one of them changed; on_db follows off_db."""
    levels = {key: options.get(key, DEFAULTS[key]) for key in DEFAULTS}
    rest = {key: old for key, old in options.items() if key not in levels}
    match name:
        case "off_db":
            above = levels["on_db"] - levels["off_db"]
            levels = {"on_db": value + above, "off_db": value}
        case "above_off_db":
            levels["on_db"] = levels["off_db"] + value
        case _:
            rest[name] = value
    return {**{k: v for k, v in levels.items() if v != DEFAULTS[k]}, **rest}
