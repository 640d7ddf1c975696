"""Accuracy of labels as a function of the time after the onset of a vocalization."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle, FrontEnd
from neurovocal.engine.contracts.types import Float32, Label
from neurovocal.models.classifier.calibration import score_segment
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import read_samples
from neurovocal.models.data.targets import FrameSpan, Units, first_frame, targets_of
from neurovocal.models.evaluation.labelling import BundleOf, Labellers, TimedLabel
from neurovocal.plugins.models.classifier.model import ClassifierOptions

DELAYS_MS = (0, 5, 10, 20, 30, 50)
FAST_DELAYS_MS = (0, 5, 10, 15, 20, 30, 50)
SURE_POSTERIOR: float | str = ClassifierOptions.fast["sure_posterior"]
"""Option of the classifier in the profile ``fast``."""


@dataclass(slots=True)
class _DelayCounts:
    """Counts of labels at one delay after the onset."""

    forced: int = 0
    right: int = 0
    wrong: int = 0
    unknown: int = 0
    total: int = 0

    def count(
        self, wanted: str, forced: str, label: Label | None, unknown: str
    ) -> None:
        """Count one vocalization; `label` is None where none was published yet."""
        self.total += 1
        self.forced += forced == wanted
        if label is None:
            return
        self.right += label.unit == wanted
        self.unknown += label.unit == unknown
        self.wrong += label.unit not in (wanted, unknown)

    def row(self, after: int | str) -> dict[str, Any]:
        """Return the shares in percent; `after` is the delay in ms or "offset"."""

        def percent(n: int) -> float:
            return round(100 * n / self.total, 2)

        named = self.right + self.wrong
        return {
            "ms": after,
            "forced_right_percent": percent(self.forced),
            "right_percent": percent(self.right),
            "wrong_percent": percent(self.wrong),
            "unknown_percent": percent(self.unknown),
            "unlabelled_percent": percent(self.total - named - self.unknown),
        }


@dataclass(frozen=True, slots=True)
class _SegmentLabels:
    """Labels of one annotated vocalization, in order of publication.

    Parameters
    ----------
    positions : list of int
        Samples of audio that had been processed before each label.
    labels : list of Label
    """

    positions: list[int] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def newest_before(self, sample: int) -> Label | None:
        """Return the newest label after the audio before `sample`, or None."""
        number = bisect_right(self.positions, sample)
        return self.labels[number - 1] if number else None

    @property
    def final(self) -> Label | None:
        """Return the last label, or None."""
        return self.labels[-1] if self.labels else None


@dataclass(slots=True)
class _Price:
    """What the first labels cost: counts over all vocalizations."""

    total: int = 0
    first_wrong: int = 0
    revised: int = 0
    false: int = 0

    def count(self, labels: Sequence[Label], wanted: str, unknown: str) -> None:
        """Count the labels of one vocalization that were published before its end."""
        self.total += 1
        named = [label.unit for label in labels if label.unit != unknown]
        early = [label.unit for label in labels if label.status != "final"]
        self.first_wrong += bool(early) and bool(named) and named[0] != wanted
        self.revised += len(set(early)) > 1

    def count_false(
        self,
        published: Sequence[TimedLabel],
        spans: Sequence[tuple[int, int]],
        unknown: str,
    ) -> None:
        """Count segments with a name that touch no annotated vocalization."""
        stops = {
            timed.label.segment: timed.label.offset
            for timed in published
            if timed.label.offset is not None
        }
        found: set[int] = set()
        for timed in published:
            label = timed.label
            stop = stops.get(label.segment, label.onset + 1)
            touches = any(label.onset < last and stop > first for first, last in spans)
            if label.status != "final" and label.unit != unknown and not touches:
                found.add(label.segment)
        self.false += len(found)

    def row(self) -> dict[str, float]:
        """Return the counts in percent of the vocalizations."""
        counts = {
            "first_wrong_percent": self.first_wrong,
            "revised_percent": self.revised,
            "false_percent": self.false,
        }
        return {
            name: round(100 * n / max(1, self.total), 2) for name, n in counts.items()
        }


def measure_label_latency(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    units: Units,
    watch: Callable[[float], None] = lambda share: None,
    bundle_of: BundleOf | None = None,
) -> list[dict[str, Any]]:
    """Measure the accuracy of labels at delays after the annotated onset.

    The engine runs frame by frame and labels a segment as soon as its onset is
    published (`provisional_ms` 0). At each delay the newest label counts when
    exactly that much audio has been processed, so that the waiting time of the
    detector and the length of a frame are included. `forced` is the most likely
    unit by the frames since the onset, without a detector or `unknown`; before the
    first of them, by the last frame before the onset.

    Parameters
    ----------
    bundle : Bundle
        Must have a classifier.
    recordings : sequence of AnnotatedRecording
    units : Units
        Units of the classifier, silence first.
    watch : callable
        Called with the completed share after each recording.
    bundle_of : callable, optional
        Maps a recording to the bundle that labels it, all of one front end and units;
        None: `bundle` labels all.

    Returns
    -------
    list of dict
        One per delay: `ms` (the last one is ``"offset"``: final labels, without a
        limit of time), and in percent of the annotated vocalizations
        `forced_right_percent`, `right_percent`, `wrong_percent`,
        `unknown_percent` and `unlabelled_percent`.
    """
    labellers = Labellers(
        bundle_of or (lambda recording: bundle), tile=1, provisional_ms=0.0
    )
    return _measure(bundle, recordings, units, labellers, DELAYS_MS, watch)[0]


def measure_fast_labels(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    units: Units,
    watch: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Measure the labels of the profile ``fast``, and what it costs.

    Parameters
    ----------
    bundle, recordings, units, watch
        As for `measure_label_latency`.

    Returns
    -------
    dict
        ``rows``, as those of `measure_label_latency`, at `FAST_DELAYS_MS`; and in
        percent of the annotated vocalizations ``first_wrong_percent`` (the first name
        before the offset is another), ``revised_percent`` (the label changed before
        the offset) and ``false_percent`` (names of sounds that are not annotated).
    """
    spec = bundle.manifest.classifier
    assert spec is not None
    labellers = Labellers(
        lambda recording: bundle,
        tile=1,
        provisional_ms=spec.provisional_ms,
        sure_posterior=SURE_POSTERIOR,
    )
    rows, price = _measure(bundle, recordings, units, labellers, FAST_DELAYS_MS, watch)
    return {"sure_posterior": SURE_POSTERIOR, "rows": rows, **price.row()}


def _measure(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    units: Units,
    labellers: Labellers,
    delays_ms: Sequence[int],
    watch: Callable[[float], None],
) -> tuple[list[dict[str, Any]], _Price]:
    """Count the labels of a lane at delays after the annotated onset."""
    spec, front_end = bundle.manifest.classifier, bundle.manifest.front_end
    assert spec is not None
    columns = [spec.units.index(name) for name in units.names]
    after: list[int | str] = [*delays_ms, "offset"]
    counts = [_DelayCounts() for _ in after]
    price = _Price()
    rate = front_end.sample_rate
    for number, recording in enumerate(recordings):
        labelled = labellers.of(recording)(read_samples(recording, rate))
        _, spans = targets_of(
            recording,
            units,
            len(labelled.posteriors),
            rate,
            front_end.hop_length,
            front_end.frame_length,
        )
        onsets = _onsets(recording, front_end)
        logs = np.log(np.maximum(labelled.posteriors[:, columns], 1e-30))
        for span in spans:
            published = _labels_of(span, labelled.published, front_end)
            wanted = units.names[span.unit]
            price.count(published.labels, wanted, spec.unknown)
            for count, ms in zip(counts, after, strict=True):
                if isinstance(ms, str):
                    forced = _forced_unit(logs, span, span.stop)
                    label = published.final
                else:
                    until = onsets[span.first] + round(ms * rate / 1000)
                    stop = 1 + (until - front_end.frame_length) // front_end.hop_length
                    forced = _forced_unit(logs, span, stop)
                    label = published.newest_before(until)
                count.count(wanted, units.names[forced], label, spec.unknown)
        annotated = [
            (
                round((a.onset_s - recording.start_s) * rate),
                round((a.offset_s - recording.start_s) * rate),
            )
            for a in recording.annotations
        ]
        price.count_false(labelled.published, annotated, spec.unknown)
        watch((number + 1) / len(recordings))
    rows = [
        count.row(ms) for count, ms in zip(counts, after, strict=True) if count.total
    ]
    return rows, price


def _onsets(recording: AnnotatedRecording, front_end: FrontEnd) -> dict[int, int]:
    """Return annotated onsets in samples by the first frame of the vocalization."""
    rate, hop, length = (
        front_end.sample_rate,
        front_end.hop_length,
        front_end.frame_length,
    )
    onsets = [(a.onset_s - recording.start_s) * rate for a in recording.annotations]
    return {max(first_frame(at, hop, length), 0): round(at) for at in onsets}


def _labels_of(
    span: FrameSpan, published: Sequence[TimedLabel], front_end: FrontEnd
) -> _SegmentLabels:
    """Return the labels of the segment with the largest overlap with `span`."""
    hop, length = front_end.hop_length, front_end.frame_length
    shared: dict[int, int] = {}
    for timed in published:
        label = timed.label
        if label.status != "final" or label.offset is None:
            continue
        first = first_frame(label.onset, hop, length)
        stop = first_frame(label.offset, hop, length)
        overlap = min(stop, span.stop) - max(first, span.first)
        if overlap > 0:
            shared[label.segment] = overlap
    found = _SegmentLabels()
    if shared:
        segment = max(shared, key=lambda name: shared[name])
        for timed in published:
            if timed.label.segment == segment:
                found.positions.append(timed.position)
                found.labels.append(timed.label)
    return found


def _forced_unit(logs: Float32, span: FrameSpan, stop: int) -> int:
    """Return the most likely unit but silence by the frames of `span` before `stop`."""
    stop = min(stop, span.stop, len(logs))
    if stop <= span.first:  # no frame of the span is known yet
        return 1 + int(logs[max(stop - 1, 0), 1:].argmax())
    rows = logs.astype(np.float64)
    part = FrameSpan(span.first, stop, span.unit)
    return 1 + int(score_segment(rows, part, "vote")[1:].argmax())
