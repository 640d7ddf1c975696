"""Select the segments that become clips, and group them into bouts."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field

from neurovocal.engine import BuildContext, Label, Offset, Options, Surprise
from neurovocal.engine.contracts.options import MOST_COUNT
from neurovocal.engine.support.text import did_you_mean

# Groups that wait for their audio at most.
_MOST_PENDING = 1000
# Models whose events are known.
_BUILT_IN = {"classifier", "rnn_rbm"}


class SelectOptions(Options):
    """Which segments are kept: all rules that are given must hold."""

    units: list[str] | None = None
    """Only segments with one of these labels."""
    min_posterior: float | None = Field(default=None, ge=0, le=1)
    """Only segments with a label of at least this posterior."""
    status: Literal["final", "any"] = "final"
    """Which labels are looked at: `final` ones, or the newest of any status."""
    min_surprise: float | None = Field(default=None, ge=-1e6, le=1e6)
    """Only segments with at least this surprise (needs `rnn_rbm`)."""
    surprise: Literal["mean", "max"] = "mean"
    """Whether the mean or the largest surprise of a segment's frames counts."""
    every: int = Field(default=1, ge=1, le=MOST_COUNT)
    """Of those that pass the other rules, in each stream: the first, and then each
    so many-th."""


def unsatisfiable_rules(
    rules: SelectOptions, lanes: Sequence[BuildContext]
) -> Iterator[str]:
    """Yield a sentence for each rule that no segment of any lane can pass."""
    if rules.min_surprise is not None and not _may_have("rnn_rbm", lanes):
        yield "select.min_surprise: nothing brings surprise: add 'rnn_rbm' to 'models'"
    asked = rules.units is not None or rules.min_posterior is not None
    if asked and not _may_have("classifier", lanes):
        option = "min_posterior" if rules.units is None else "units"
        yield f"select.{option}: nothing labels: add 'classifier' to 'models'"
        return
    known = _known_units(lanes)
    if known is None:
        return
    for unit in rules.units or ():
        if unit not in known:
            meant = did_you_mean(unit, known, "there are:")
            yield f"select.units: no model knows a unit '{unit}' ({meant})"


def _may_have(model: str, lanes: Sequence[BuildContext]) -> bool:
    """Return True if a lane has the model, or a model with unknown events."""
    models = {name for lane in lanes for name in lane.models}
    return model in models or not models <= _BUILT_IN


def _known_units(lanes: Sequence[BuildContext]) -> list[str] | None:
    """Return the units that labels can have; None if that is not known."""
    units: dict[str, None] = {}
    for lane in lanes:
        spec = lane.bundle.manifest.classifier if lane.bundle else None
        if not set(lane.models) <= _BUILT_IN:
            return None
        if spec is not None:
            units |= dict.fromkeys(unit for unit in spec.units if unit != spec.silence)
            units[spec.unknown] = None
    return list(units)


@dataclass(slots=True)
class ClipSegment:
    """Segment with its labels and its surprise, in samples of the lane."""

    mark: Offset
    utc_ns: int | None = None
    labels: dict[str, Label] = field(default_factory=dict)
    surprise: tuple[float, float] | None = None  # mean, max


@dataclass(slots=True)
class ClipSpan:
    """Segments of one clip, in order."""

    segments: list[ClipSegment]

    @property
    def onset(self) -> int:
        """First sample of the first segment."""
        return self.segments[0].mark.onset

    @property
    def offset(self) -> int:
        """Offset of the last segment."""
        return self.segments[-1].mark.sample


class SegmentSelection:
    """Rules of one stream, with the number of spans that have passed them."""

    def __init__(self, options: SelectOptions) -> None:
        self._options = options
        self._passed = 0

    def accepts(self, span: ClipSpan) -> bool:
        """Return True if a clip is made: one segment of a bout must pass all rules."""
        if not any(self._passes(segment) for segment in span.segments):
            return False
        self._passed += 1
        return (self._passed - 1) % self._options.every == 0

    def _passes(self, segment: ClipSegment) -> bool:
        rules = self._options
        labels = [
            label
            for label in segment.labels.values()
            if rules.status == "any" or label.status == "final"
        ]
        if rules.units is not None:
            labels = [label for label in labels if label.unit in rules.units]
        if rules.min_posterior is not None:
            labels = [x for x in labels if x.posterior >= rules.min_posterior]
        asked = rules.units is not None or rules.min_posterior is not None
        if asked and not labels:
            return False
        if rules.min_surprise is None:
            return True
        if segment.surprise is None:
            return False
        mean, most = segment.surprise
        return (mean if rules.surprise == "mean" else most) >= rules.min_surprise


class SurpriseHistory:
    """Surprise of the last frames of a stream.

    Parameters
    ----------
    length : int
        Samples of the lane for which surprise is kept.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._kept: deque[Surprise] = deque()

    def add(self, event: Surprise) -> None:
        """Append the surprise of the next frames."""
        self._kept.append(event)
        newest = (event.first + len(event.values)) * event.hop_length
        while _end(self._kept[0]) < newest - self._length:
            self._kept.popleft()

    def mean_and_maximum(self, onset: int, offset: int) -> tuple[float, float] | None:
        """Return mean and maximum over the frames that begin in a segment.

        The frame that the onset lies in counts, too. None: there are no frames.
        """
        values = []
        for event in self._kept:
            hop = event.hop_length
            first = max(onset // hop, event.first)
            last = min(-(-offset // hop), event.first + len(event.values))
            if first < last:
                values.append(event.values[first - event.first : last - event.first])
        if not values:
            return None
        joined = np.concatenate(values)
        return round(float(joined.mean()), 6), round(float(joined.max()), 6)


def _end(event: Surprise) -> int:
    return (event.first + len(event.values)) * event.hop_length


class SegmentGrouper:
    """Groups the segments of a stream into spans: one segment each, or bouts.

    Parameters
    ----------
    bout_gap : int, optional
        Silence in samples up to which segments belong to one bout; None: each segment
        is a span.
    longest : int
        Longest bout in samples; a segment that would exceed it begins a new one.
    label_wait : int
        Samples after the last offset of a span in which labels may still come.

    Attributes
    ----------
    abandoned : int
        Spans that were dropped because too many waited for their audio.
    """

    def __init__(self, bout_gap: int | None, longest: int, label_wait: int) -> None:
        self._bout_gap = bout_gap
        self._longest = longest
        self._label_wait = label_wait
        self._open_onset: int | None = None
        self._open_labels: dict[str, Label] = {}  # of the open segment, by model
        self._spans: deque[ClipSpan] = deque()
        self.abandoned = 0

    def add_onset(self, sample: int) -> None:
        """Note that a segment has begun."""
        self._open_onset = sample
        self._open_labels.clear()

    def add_segment(self, segment: ClipSegment) -> None:
        """Add a segment that has ended."""
        self._open_onset = None
        for model, label in self._open_labels.items():
            if label.segment == segment.mark.segment:
                segment.labels[model] = label
        self._open_labels.clear()
        newest = self._spans[-1] if self._spans else None
        if newest is not None and self._joins(newest, segment.mark):
            newest.segments.append(segment)
        else:
            self._spans.append(ClipSpan([segment]))
        if len(self._spans) > _MOST_PENDING:
            self._spans.popleft()
            self.abandoned += 1

    def add_label(self, label: Label, at: int) -> None:
        """Add a label that came at sample `at`; ignore it later than `label_wait`."""
        for span in reversed(self._spans):
            for segment in reversed(span.segments):
                if segment.mark.segment == label.segment:
                    if at <= segment.mark.sample + self._label_wait:
                        segment.labels[label.model] = label
                    return
        self._open_labels[label.model] = label

    def pop_complete(self, position: int) -> list[ClipSpan]:
        """Remove and return the spans that are complete at a sample of the lane."""
        done = []
        while self._spans and self._is_complete(self._spans[0], position):
            done.append(self._spans.popleft())
        return done

    def pop_all(self) -> list[ClipSpan]:
        """Remove and return all spans, at the end of the stream."""
        spans, self._spans = list(self._spans), deque()
        return spans

    def _joins(self, span: ClipSpan, mark: Offset) -> bool:
        if self._bout_gap is None:
            return False
        near = mark.onset - span.offset <= self._bout_gap
        return near and mark.sample - span.onset <= self._longest

    def _is_complete(self, span: ClipSpan, position: int) -> bool:
        if position < span.offset + self._label_wait:
            return False
        if self._bout_gap is None or len(self._spans) > 1:
            return True
        if position >= span.onset + self._longest + self._label_wait:
            return True
        if self._open_onset is not None:
            return self._open_onset - span.offset > self._bout_gap
        return position >= span.offset + self._bout_gap + self._label_wait
