"""Labels and posteriors of whole recordings, from an offline lane of the engine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import DEFAULT_DETECTOR, Bundle, DetectorSpec
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Float32,
    Label,
    Posteriors,
)
from neurovocal.engine.lane.offline import build_offline_lane
from neurovocal.models.classifier.sure import early_detector
from neurovocal.models.data.datasets import AnnotatedRecording

BundleOf: TypeAlias = Callable[[AnnotatedRecording], Bundle]
"""Maps a recording to the bundle that labels it."""


@dataclass(frozen=True, slots=True)
class TimedLabel:
    """A label with the samples of audio that had been processed before it."""

    position: int
    label: Label


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRecording:
    """Labels and posteriors of one recording.

    Parameters
    ----------
    labels : list of Label
        Final ones, in order of their onsets.
    posteriors : float32[n_frames, n_units]
        Posteriors of every frame.
    published : list of TimedLabel
        All labels in order of publication, provisional ones included.
    """

    labels: list[Label]
    posteriors: Float32
    published: list[TimedLabel]


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedRecording:
    """A recording with the labels and posteriors of the engine's classifier.

    Parameters
    ----------
    recording : AnnotatedRecording
    labels : list of Label
        Final ones, in order of their onsets; times count from `recording.start_s`.
    posteriors : float32[n_frames, n_units]
        Silence first.
    target : int64[n_frames]
        Annotated unit of each frame, an index into `posteriors`; `IGNORED` where it
        is not known.
    """

    recording: AnnotatedRecording
    labels: list[Label]
    posteriors: Float32
    target: NDArray[np.int64]


class Labeller:
    """A lane with a bundle's front end and classifier, and a detector.

    Parameters
    ----------
    bundle : Bundle
        Must have a classifier.
    detector : str, optional
        Name of the detector plugin; by default the one that the bundle
        recommends, else `bands`.
    options : dict, optional
        Its options; the plugin's defaults where absent.
    tile : int
        Frames per network call, as in the engine's configuration.
    provisional_ms : float, optional
        Delay of provisional labels; None: there are only final ones.
    sure_posterior : float or 'bundle', optional
        As the option of the classifier; onsets are then early, too.
    """

    def __init__(
        self,
        bundle: Bundle,
        detector: str | None = None,
        options: dict[str, object] | None = None,
        tile: int = 8,
        provisional_ms: float | None = None,
        sure_posterior: float | str | None = None,
    ) -> None:
        default = DetectorSpec(plugin=DEFAULT_DETECTOR)
        recommended = bundle.manifest.detector or default
        if detector is None:
            detector = recommended.plugin
            options = options or recommended.options
        classifier: dict[str, object] = {"provisional": False}
        if provisional_ms is not None:
            classifier = {"provisional_ms": provisional_ms}
        if sure_posterior is not None:
            classifier["sure_posterior"] = sure_posterior
            fast = recommended.fast_options if detector == recommended.plugin else {}
            spec = DetectorSpec(
                plugin=detector, options=options or {}, fast_options=fast
            )
            options = early_detector(spec).options
        self._lane = build_offline_lane(
            bundle,
            DetectorSpec(plugin=detector, options=options or {}),
            {"classifier": classifier},
            purpose="evaluation",
            tile=tile,
        )
        # Only the time of provisional labels depends on the length of blocks.
        self._block_length = None if provisional_ms is None else self._lane.quantum
        assert bundle.manifest.classifier is not None
        self._n_units = len(bundle.manifest.classifier.units)

    def __call__(self, samples: Float32) -> LabelledRecording:
        """Label a whole recording, float32[n_samples], from the start of a stream."""
        self._lane.reset()
        published: list[TimedLabel] = []
        rows = [np.zeros((0, self._n_units), np.float32)]
        for position, event in self._events(samples):
            if isinstance(event, Label):
                published.append(TimedLabel(position, event))
            elif isinstance(event, Posteriors):
                rows.append(event.values)
        labels = [each.label for each in published if each.label.status == "final"]
        labels.sort(key=lambda label: label.onset)
        return LabelledRecording(labels, np.concatenate(rows), published)

    def _events(self, samples: Float32) -> Iterator[tuple[int, Event]]:
        """Yield each event with the samples that had been processed before it."""
        n, length = len(samples), self._block_length or max(len(samples), 1)
        for start in range(0, n, length):
            block = Block(start, samples[start : start + length, None])
            for step in self._lane.process(block):
                for event in step.events:
                    yield min(start + length, n), event
        for step in self._lane.flush():
            for event in step.events:
                yield n, event


class Labellers:
    """One `Labeller` for each bundle that labels recordings.

    Parameters
    ----------
    bundle_of : callable
        Maps a recording to a bundle.
    options
        Options of `Labeller`.
    """

    def __init__(self, bundle_of: BundleOf, **options: Any) -> None:
        self._bundle_of, self._options = bundle_of, options
        self._made: dict[Path, Labeller] = {}

    def of(self, recording: AnnotatedRecording) -> Labeller:
        """Return the labeller of a recording."""
        bundle = self._bundle_of(recording)
        if bundle.folder not in self._made:
            self._made[bundle.folder] = Labeller(bundle, **self._options)
        return self._made[bundle.folder]
