"""Search for the detector options with the best agreement with the annotation.

Annotators follow their own rules, such as how quiet a gap must be to end a syllable.
The options of the `energy` detector are chosen so that the engine's final labels of
annotated recordings have the fewest errors.
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
from neurovocal.engine.contracts.types import (
    Block,
    Float32,
    Offset,
    StreamInfo,
)
from neurovocal.models.data.frames import LabelledFrames, read_samples
from neurovocal.models.data.targets import first_frame
from neurovocal.models.toolkit.measures import (
    IGNORED,
    ErrorCount,
    Float64,
    edit_distance,
    frame_errors,
)
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.tuning.search import CoordinateSearch
from neurovocal.plugins.models.classifier.decision import LabelDecision

# Further starting points, for sounds with quiet parts, such as words, and for
# recordings that start within a sound.
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
# Values to try, one option after another. `above_off_db` is on_db - off_db.
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
# Least decrease of the error, in percent, for which an option is changed: smaller
# ones are due to a few segments.
MIN_IMPROVEMENT = 0.05
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """Frame and syllable errors of labels against the annotation."""

    frames: ErrorCount
    syllables: ErrorCount

    def __add__(self, other: "LabelErrors") -> "LabelErrors":
        """Add the counts."""
        return LabelErrors(self.frames + other.frames, self.syllables + other.syllables)

    @property
    def error(self) -> float:
        """Sum of frame error and syllable error, in percent."""
        return (self.frames.percent or 0.0) + (self.syllables.percent or 0.0)


@dataclass(eq=False)
class ScoredRecording:
    """A recording with the classifier's log-posteriors of its frames.

    Parameters
    ----------
    example : LabelledFrames
        Frames, targets and annotated segments.
    log_posteriors : float64[n_frames, n_units]
        Log-posteriors; silence is column 0.
    front_end : FrontEnd
        Front end of the frames.
    spec : ClassifierSpec
        Decision rule and calibration.
    """

    example: LabelledFrames
    log_posteriors: Float64
    front_end: FrontEnd
    spec: ClassifierSpec
    sums: Float64 = field(init=False)

    def __post_init__(self) -> None:
        rows = self.log_posteriors
        self._decide = LabelDecision(self.spec)
        self.sums = np.concatenate([np.zeros((1, rows.shape[1])), rows.cumsum(axis=0)])

    @cached_property
    def samples(self) -> Float32:
        """Samples of the recording, float32[n_samples]."""
        return read_samples(self.example.recording, self.front_end.sample_rate)

    def label_errors(self, segments: Sequence[tuple[int, int]]) -> LabelErrors:
        """Count the errors of the labels of detected segments.

        A label `unknown` counts as no label, and its frames as silence.

        Parameters
        ----------
        segments : sequence of (int, int)
            Detected segments ``[onset, offset)`` in samples.
        """
        target = self.example.target
        labelled = np.zeros(len(target), np.int64)
        found = []
        for onset, offset in segments:
            first, stop = self._frame_at(onset), self._frame_at(offset)
            if stop <= first:
                continue
            scores = self.sums[stop] - self.sums[first]
            if self.spec.decision == "last":
                scores = self.log_posteriors[stop - 1]
            name, _ = self._decide(scores, n_frames=stop - first)
            if name == self.spec.unknown:
                continue
            unit = self.spec.units.index(name)
            labelled[first:stop] = unit
            if target[(first + stop - 1) // 2] != IGNORED:
                found.append(unit)
        reference = [span.unit for span in self.example.spans]
        edits = edit_distance(reference, found)
        return LabelErrors(
            frame_errors(target, labelled), ErrorCount(edits, len(reference))
        )

    def _frame_at(self, sample: int) -> int:
        """Return the first frame centred at or after `sample`, within the recording."""
        fe, n = self.front_end, len(self.log_posteriors)
        return min(max(first_frame(sample, fe.hop_length, fe.frame_length), 0), n)


def fit_detector(
    recordings: Sequence[ScoredRecording],
    start: dict[str, Any],
    on_progress: ProgressCallback = lambda share, note: None,
    check_stop: Callable[[], None] = lambda: None,
    limit_s: float = math.inf,
) -> DetectorSpec:
    """Search the options of the `energy` detector with the fewest label errors.

    A coordinate search from a few starting points. An option keeps its value unless
    another one reduces the error by `MIN_IMPROVEMENT`.

    Parameters
    ----------
    recordings : sequence of ScoredRecording
        Recordings of the training and validation splits.
    start : dict
        Options at which the search starts.
    on_progress : callable
        Receives the share of the search that is done.
    check_stop : callable
        Called between two tries; raises an exception to end the search.
    limit_s : float
        Wall-clock seconds after which the best options so far are returned.

    Returns
    -------
    DetectorSpec
        Detector with the options that differ from the plugin's defaults.
    """
    ends_at_s = time.monotonic() + limit_s
    return _Search(recordings, on_progress, check_stop, ends_at_s).run(start)


def select_evenly(
    examples: Sequence[LabelledFrames], limit_s: float
) -> list[LabelledFrames]:
    """Select recordings of about `limit_s` seconds in total, evenly from the list."""
    total = sum(example.recording.part_duration_s for example in examples)
    share = min(1.0, limit_s / total) if total else 1.0
    kept, credit = [], 0.0
    for example in examples:
        credit += share
        if credit >= 1.0 - 1e-9:
            kept.append(example)
            credit -= 1.0
    return kept or list(examples[:1])


class _Search:
    """Coordinate search for the options with the fewest label errors."""

    def __init__(
        self,
        recordings: Sequence[ScoredRecording],
        on_progress: ProgressCallback,
        check_stop: Callable[[], None],
        ends_at_s: float,
    ) -> None:
        self._recordings = recordings
        self._on_progress, self._check_stop = on_progress, check_stop
        self._plugin = Registry().get("detector", "energy")
        self._search = CoordinateSearch(
            self._error,
            change=_change_option,
            improvement=MIN_IMPROVEMENT,
            is_due=lambda: time.monotonic() > ends_at_s,
        )
        self._tries = len(START_OPTIONS) + ROUNDS * sum(
            len(v) for v in CANDIDATE_VALUES.values()
        )

    def run(self, start: dict[str, Any]) -> DetectorSpec:
        """Search from `start`, or from one of `START_OPTIONS` if that is better."""
        cost = self._search.cost
        options = min(START_OPTIONS, key=cost)
        if cost(start) < cost(options) + MIN_IMPROVEMENT:
            options = start
        options = self._search.run(options, CANDIDATE_VALUES, ROUNDS)
        return DetectorSpec(plugin="energy", options=options)

    def _error(self, options: dict[str, Any]) -> float:
        """Return the error of options, and tell the progress."""
        self._check_stop()
        error = self._measure(options)
        self._on_progress(min(1.0, (self._search.n_tried + 1) / self._tries), "")
        return error

    def _measure(self, options: dict[str, Any]) -> float:
        """Detect segments of all recordings and return the error; inf if invalid."""
        rate = self._recordings[0].front_end.sample_rate
        context = BuildContext(
            clock=SystemClock(), run="training", info=StreamInfo("training", rate)
        )
        checked = self._plugin.options.model_validate(options)
        try:
            detector = self._plugin.build(checked, context)
        except ConfigError:  # options that contradict each other or the rate
            return float("inf")
        total = LabelErrors(ErrorCount(), ErrorCount())
        for recording in self._recordings:
            marks = [*detector.process(Block(0, recording.samples[:, None]))]
            marks += detector.flush()
            detector.reset()
            total += recording.label_errors(
                [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]
            )
        return total.error


def _change_option(options: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return the options with one of them changed; on_db moves along with off_db."""
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
