"""Labels as the engine gives them: recordings through a lane."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle, DetectorSpec
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Float32,
    Label,
    Posteriors,
    StreamInfo,
)
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.offline import build_front_end, context_of
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.models.data.datasets import AnnotatedRecording


@dataclass(frozen=True, slots=True)
class Told:
    """A label, and the samples that had been heard when it was told."""

    heard: int
    label: Label


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What the engine says of a recording.

    Parameters
    ----------
    labels : list of Label
        Final ones, in order of their onsets.
    posteriors : float32[n_frames, n_units]
        Of every frame.
    told : list of Told
        All labels in the order in which they were told.
    """

    labels: list[Label]
    posteriors: Float32
    told: list[Told]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A recording with what the engine's classifier said of it.

    Parameters
    ----------
    recording : AnnotatedRecording
    labels : list of Label
        Final ones, in order of their onsets; times count from `recording.start_s`.
    posteriors : float32[n_frames, n_units]
        Silence first.
    target : int64[n_frames]
        The unit that is right, an index into `posteriors`; `IGNORED` where nobody
        can say.
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
        recommends, or else `energy`.
    options : dict, optional
        Its options; the plugin's defaults where absent.
    tile : int
        Frames per network call, as in the engine's configuration.
    provisional_ms : float, optional
        Delay of provisional labels; None: there are only final ones.
    """

    def __init__(
        self,
        bundle: Bundle,
        detector: str | None = None,
        options: dict[str, object] | None = None,
        tile: int = 8,
        provisional_ms: float | None = None,
    ) -> None:
        advised = bundle.manifest.detector or DetectorSpec()
        if detector is None:
            detector, options = advised.plugin, options or advised.options
        front_end = bundle.manifest.front_end
        info = StreamInfo("recording", front_end.sample_rate)
        context = replace(context_of(bundle, "evaluation"), info=info, tile=tile)
        registry = Registry()
        plugin = registry.get("detector", detector)
        stage = plugin.build(plugin.options.model_validate(options or {}), context)
        context = replace(context, detector_latency=stage.latency)
        classifier = registry.get("model", "classifier")
        early: dict[str, object] = {"provisional": False}
        self._quantum = tile * front_end.hop_length
        self._block_length: int | None = None  # only early labels ask when
        if provisional_ms is not None:
            early = {"provisional_ms": provisional_ms}
            self._block_length = self._quantum
        model = classifier.build(classifier.options.model_validate(early), context)
        features = build_front_end(front_end, bundle.folder, registry)
        assert bundle.manifest.classifier is not None
        self._n_units = len(bundle.manifest.classifier.units)
        self._lane = Lane(
            info,
            self._quantum,
            SupervisedStage("features", features, "fail"),
            SupervisedStage(detector, stage, "fail"),
            [SupervisedStage("classifier", model, "fail")],
        )

    def __call__(self, samples: Float32) -> Labelled:
        """Labels and posteriors of a whole recording, float32[n_samples]."""
        self._lane.reset()
        told: list[Told] = []
        rows = [np.zeros((0, self._n_units), np.float32)]
        for heard, event in self._events(samples):
            if isinstance(event, Label):
                told.append(Told(heard, event))
            elif isinstance(event, Posteriors):
                rows.append(event.values)
        labels = [one.label for one in told if one.label.status == "final"]
        labels.sort(key=lambda label: label.onset)
        return Labelled(labels, np.concatenate(rows), told)

    def _events(self, samples: Float32) -> Iterator[tuple[int, Event]]:
        """Events with the samples that had been heard before each."""
        n, length = len(samples), self._block_length or max(len(samples), 1)
        for start in range(0, n, length):
            block = Block(start, samples[start : start + length, None])
            for step in self._lane.process(block):
                for event in step.events:
                    yield min(start + length, n), event
        for step in self._lane.flush():
            for event in step.events:
                yield n, event
