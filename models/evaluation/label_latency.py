"""How soon a vocalization gets its right label: a curve over time after its onset."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle, FrontEnd
from neurovocal.engine.contracts.types import Float32, Label
from neurovocal.models.classifier.calibration import score_segment
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import (
    FrameSpan,
    first_frame,
    frame_targets,
    read_samples,
)
from neurovocal.models.data.split import Units
from neurovocal.models.evaluation.labelling import Labeller, Told

DELAYS_MS = (0, 5, 10, 20, 30, 50)


@dataclass(slots=True)
class _Tally:
    """Answers at one delay."""

    forced: int = 0
    right: int = 0
    wrong: int = 0
    unknown: int = 0
    total: int = 0

    def count(self, wanted: str, forced: str, told: Label | None, unknown: str) -> None:
        self.total += 1
        self.forced += forced == wanted
        if told is None:
            return
        self.right += told.unit == wanted
        self.unknown += told.unit == unknown
        self.wrong += told.unit not in (wanted, unknown)

    def row(self, after: int | str) -> dict[str, Any]:
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
class _Answers:
    """What was told of one annotated vocalization, in order of time."""

    heard: list[int] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def at(self, sample: int) -> Label | None:
        """The label that stands once the audio before `sample` has been heard."""
        number = bisect_right(self.heard, sample)
        return self.labels[number - 1] if number else None

    @property
    def final(self) -> Label | None:
        """The last word."""
        return self.labels[-1] if self.labels else None


def label_in_time(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    units: Units,
    watch: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """Accuracy against time after the annotated onset.

    The engine runs frame by frame and labels a segment as soon as its onset is
    told (`provisional_ms` 0). At each delay that label counts which stands when
    the audio until then, and no more, has been heard: what the detector waits for
    and the length of a frame are paid for. `forced` is the likeliest unit by the
    frames heard since the onset, without a detector or `unknown`; before the first
    of them, by the last frame before it.

    Parameters
    ----------
    bundle : Bundle
        Must have a classifier.
    recordings : sequence of AnnotatedRecording
    units : Units
        Silence first.
    watch : callable
        Told the share that is done.

    Returns
    -------
    list of dict
        One per delay: `ms` (the last one is ``"offset"``: final labels, at
        whatever time), and in percent of the annotated vocalizations
        `forced_right_percent`, `right_percent`, `wrong_percent`,
        `unknown_percent` and `unlabelled_percent`.
    """
    spec, front_end = bundle.manifest.classifier, bundle.manifest.front_end
    assert spec is not None
    columns = [spec.units.index(name) for name in units.names]
    labeller = Labeller(bundle, tile=1, provisional_ms=0.0)
    after: list[int | str] = [*DELAYS_MS, "offset"]
    tallies = [_Tally() for _ in after]
    for number, recording in enumerate(recordings):
        heard = labeller(read_samples(recording, front_end.sample_rate))
        _, spans = frame_targets(
            recording,
            units,
            len(heard.posteriors),
            front_end.sample_rate,
            front_end.hop_length,
            front_end.frame_length,
        )
        onsets = _onsets(recording, front_end)
        logs = np.log(np.maximum(heard.posteriors[:, columns], 1e-30))
        for span in spans:
            answers = _answers_to(span, heard.told, front_end)
            wanted = units.names[span.unit]
            for tally, ms in zip(tallies, after, strict=True):
                if isinstance(ms, str):
                    forced, told = _forced(logs, span, span.stop), answers.final
                else:
                    until = onsets[span.first] + round(
                        ms * front_end.sample_rate / 1000
                    )
                    stop = 1 + (until - front_end.frame_length) // front_end.hop_length
                    forced, told = _forced(logs, span, stop), answers.at(until)
                tally.count(wanted, units.names[forced], told, spec.unknown)
        watch((number + 1) / len(recordings))
    return [
        tally.row(ms) for tally, ms in zip(tallies, after, strict=True) if tally.total
    ]


def _onsets(recording: AnnotatedRecording, front_end: FrontEnd) -> dict[int, int]:
    """Annotated onsets in samples, by the first frame of the vocalization."""
    rate, hop, length = (
        front_end.sample_rate,
        front_end.hop_length,
        front_end.frame_length,
    )
    onsets = [(a.onset_s - recording.start_s) * rate for a in recording.annotations]
    return {max(first_frame(at, hop, length), 0): round(at) for at in onsets}


def _answers_to(span: FrameSpan, told: Sequence[Told], front_end: FrontEnd) -> _Answers:
    """Labels of the segment that shares most with an annotated vocalization."""
    hop, length = front_end.hop_length, front_end.frame_length
    shared: dict[int, int] = {}
    for one in told:
        label = one.label
        if label.status != "final" or label.offset is None:
            continue
        first = first_frame(label.onset, hop, length)
        stop = first_frame(label.offset, hop, length)
        overlap = min(stop, span.stop) - max(first, span.first)
        if overlap > 0:
            shared[label.segment] = overlap
    answers = _Answers()
    if shared:
        segment = max(shared, key=lambda name: shared[name])
        for one in told:
            if one.label.segment == segment:
                answers.heard.append(one.heard)
                answers.labels.append(one.label)
    return answers


def _forced(logs: Float32, span: FrameSpan, stop: int) -> int:
    """Likeliest unit but silence by the frames of `span` before `stop`."""
    stop = min(stop, span.stop, len(logs))
    if stop <= span.first:  # no frame of it is known: what was foreseen
        return 1 + int(logs[max(stop - 1, 0), 1:].argmax())
    rows = logs.astype(np.float64)
    part = FrameSpan(span.first, stop, span.unit)
    return 1 + int(score_segment(rows, part, "vote")[1:].argmax())
