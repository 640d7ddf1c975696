"""Which segments become clips, and where a clip begins and ends."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field

from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Label, Offset, Surprise
from neurovocal.engine.support.text import hint

# Where no audio comes at all, so many segments wait for theirs.
_MOST_WAITING = 1000
# Models of which it is known what they bring.
_BUILT_IN = {"classifier", "rnn_rbm"}


class SelectOptions(Options):
    """Which segments are kept: all rules that are given must hold."""

    units: list[str] | None = None
    """Only segments with one of these labels."""
    min_posterior: float | None = Field(default=None, ge=0, le=1)
    """Only segments whose label has at least this posterior."""
    status: Literal["final", "any"] = "final"
    """Which labels are looked at: `final` ones, or the newest of any status."""
    min_surprise: float | None = None
    """Only segments whose surprise reaches this level (needs `rnn_rbm`)."""
    surprise: Literal["mean", "max"] = "mean"
    """Whether the mean or the largest surprise of a segment's frames counts."""
    every: int = Field(default=1, ge=1)
    """Of those that pass the other rules, in each stream: the first, and then each
    so many-th."""


def never_passed(rules: SelectOptions, lanes: Sequence[BuildContext]) -> Iterator[str]:
    """A sentence for each rule that nothing can pass in any of the lanes."""
    if rules.min_surprise is not None and not _may_bring("rnn_rbm", lanes):
        yield "select.min_surprise: nothing brings surprise: add 'rnn_rbm' to 'models'"
    asked = rules.units is not None or rules.min_posterior is not None
    if asked and not _may_bring("classifier", lanes):
        option = "min_posterior" if rules.units is None else "units"
        yield f"select.{option}: nothing labels: add 'classifier' to 'models'"
        return
    known = _known_units(lanes)
    if known is None:
        return
    for unit in rules.units or ():
        if unit not in known:
            meant = hint(unit, known, "there are:")
            yield f"select.units: no model knows a unit '{unit}' ({meant})"


def _may_bring(model: str, lanes: Sequence[BuildContext]) -> bool:
    """Whether one of the lanes has it, or a model of which we do not know."""
    models = {name for lane in lanes for name in lane.models}
    return model in models or not models <= _BUILT_IN


def _known_units(lanes: Sequence[BuildContext]) -> list[str] | None:
    """Units that labels can have; None where that cannot be known."""
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
class Heard:
    """A segment that has ended, with what was said of it; samples of the lane."""

    mark: Offset
    utc_ns: int | None = None
    labels: dict[str, Label] = field(default_factory=dict)
    surprise: tuple[float, float] | None = None  # mean, max


@dataclass(slots=True)
class ClipSpan:
    """Segments that share a clip, in order."""

    segments: list[Heard]

    @property
    def onset(self) -> int:
        """First sample of the first segment."""
        return self.segments[0].mark.onset

    @property
    def offset(self) -> int:
        """Sample after the last segment."""
        return self.segments[-1].mark.sample


class Choice:
    """The rules, and the count of what passed them; one for each stream."""

    def __init__(self, options: SelectOptions) -> None:
        self._options = options
        self._passed = 0

    def takes(self, piece: ClipSpan) -> bool:
        """Whether a clip is made: a bout needs one segment that passes all rules."""
        if not any(self._passes(segment) for segment in piece.segments):
            return False
        self._passed += 1
        return (self._passed - 1) % self._options.every == 0

    def _passes(self, segment: Heard) -> bool:
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
        Samples of the lane that are kept.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._kept: deque[Surprise] = deque()

    def add(self, event: Surprise) -> None:
        """Take the next frames."""
        self._kept.append(event)
        newest = (event.first + len(event.values)) * event.hop_length
        while _end(self._kept[0]) < newest - self._length:
            self._kept.popleft()

    def over(self, onset: int, offset: int) -> tuple[float, float] | None:
        """Mean and maximum over the frames that begin in a segment.

        The frame in which the segment begins counts, too; None: nothing is known.
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


class Grouper:
    """Joins the segments of a stream to pieces: one each, or bouts.

    Parameters
    ----------
    bout_gap : int, optional
        Silence in samples up to which segments belong to one bout; None: each
        segment is a piece.
    longest : int
        A bout that would become longer than this is ended before.
    settle : int
        Samples after a piece's last offset in which labels may still come.
    """

    def __init__(self, bout_gap: int | None, longest: int, settle: int) -> None:
        self._bout_gap = bout_gap
        self._longest = longest
        self._settle = settle
        self._open_onset: int | None = None
        self._early: dict[str, Label] = {}  # of the segment that is open
        self._pieces: deque[ClipSpan] = deque()
        self.abandoned = 0

    def onset(self, sample: int) -> None:
        """A segment begins: a bout may go on."""
        self._open_onset = sample
        self._early.clear()

    def offset(self, segment: Heard) -> None:
        """A segment has ended."""
        self._open_onset = None
        for model, label in self._early.items():
            if label.segment == segment.mark.segment:
                segment.labels[model] = label
        self._early.clear()
        newest = self._pieces[-1] if self._pieces else None
        if newest is not None and self._joins(newest, segment.mark):
            newest.segments.append(segment)
        else:
            self._pieces.append(ClipSpan([segment]))
        if len(self._pieces) > _MOST_WAITING:
            self._pieces.popleft()
            self.abandoned += 1

    def label(self, label: Label, at: int) -> None:
        """A label; one that comes later than `settle` is too late, however cut."""
        for piece in reversed(self._pieces):
            for segment in reversed(piece.segments):
                if segment.mark.segment == label.segment:
                    if at <= segment.mark.sample + self._settle:
                        segment.labels[label.model] = label
                    return
        self._early[label.model] = label

    def due(self, heard: int) -> list[ClipSpan]:
        """Pieces of which nothing more will come once `heard` samples were heard."""
        done = []
        while self._pieces and self._is_over(self._pieces[0], heard):
            done.append(self._pieces.popleft())
        return done

    def rest(self) -> list[ClipSpan]:
        """What is left at the end of the stream."""
        pieces, self._pieces = list(self._pieces), deque()
        return pieces

    def _joins(self, piece: ClipSpan, mark: Offset) -> bool:
        if self._bout_gap is None:
            return False
        near = mark.onset - piece.offset <= self._bout_gap
        return near and mark.sample - piece.onset <= self._longest

    def _is_over(self, piece: ClipSpan, heard: int) -> bool:
        if heard < piece.offset + self._settle:
            return False
        if self._bout_gap is None or len(self._pieces) > 1:
            return True
        if heard >= piece.onset + self._longest + self._settle:
            return True
        if self._open_onset is not None:
            return self._open_onset - piece.offset > self._bout_gap
        return heard >= piece.offset + self._bout_gap + self._settle
