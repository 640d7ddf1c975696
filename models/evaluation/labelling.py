"""Labels as the engine gives them: recordings through a lane."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle, DetectorSpec
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Float32,
    Label,
    Posteriors,
)
from neurovocal.engine.lane.offline import build_offline_lane
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
        early: dict[str, object] = {"provisional": False}
        if provisional_ms is not None:
            early = {"provisional_ms": provisional_ms}
        self._lane = build_offline_lane(
            bundle,
            DetectorSpec(plugin=detector, options=options or {}),
            {"classifier": early},
            purpose="evaluation",
            tile=tile,
        )
        # Only the time of provisional labels depends on the length of blocks.
        self._block_length = None if provisional_ms is None else self._lane.quantum
        assert bundle.manifest.classifier is not None
        self._n_units = len(bundle.manifest.classifier.units)

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
