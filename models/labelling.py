"""Labels as the engine gives them: recordings through a lane."""

from dataclasses import dataclass, replace

import numpy as np

from neurovocal.engine.front_end import build_front_end
from neurovocal.engine.lane import Lane
from neurovocal.engine.manifest import Bundle
from neurovocal.engine.registry import BuildContext, Registry
from neurovocal.engine.supervise import StageShell
from neurovocal.engine.timebase import SystemClock
from neurovocal.engine.types import Block, Float32, Label, Posteriors, StreamInfo


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What the engine says of a recording.

    Parameters
    ----------
    labels : list of Label
        Final ones, in order of their onsets.
    posteriors : float32[n_frames, n_units]
        Of every frame.
    """

    labels: list[Label]
    posteriors: Float32


class Labeller:
    """A lane with a bundle's front end and classifier, and a detector.

    Parameters
    ----------
    bundle : Bundle
        Must have a classifier.
    detector : str
        Name of the detector plugin.
    options : dict, optional
        Its options; the plugin's defaults where absent.
    tile : int
        Frames per network call, as in the engine's configuration.
    """

    def __init__(
        self,
        bundle: Bundle,
        detector: str = "energy",
        options: dict[str, object] | None = None,
        tile: int = 8,
    ) -> None:
        front_end = bundle.manifest.front_end
        info = StreamInfo("recording", front_end.sample_rate)
        context = BuildContext(
            clock=SystemClock(),
            run="evaluation",
            info=info,
            bundle=bundle,
            tile=tile,
            n_bins=front_end.n_bins,
            hop_length=front_end.hop_length,
            frame_length=front_end.frame_length,
        )
        registry = Registry()
        plugin = registry.get("detector", detector)
        stage = plugin.build(plugin.options.model_validate(options or {}), context)
        context = replace(context, detector_latency=stage.latency)
        classifier = registry.get("model", "classifier")
        model = classifier.build(
            classifier.options.model_validate({"provisional": False}), context
        )
        features = build_front_end(front_end, bundle.folder, registry)
        assert bundle.manifest.classifier is not None
        self._n_units = len(bundle.manifest.classifier.units)
        self._lane = Lane(
            info,
            tile * front_end.hop_length,
            StageShell("features", features, "fail"),
            StageShell(detector, stage, "fail"),
            [StageShell("classifier", model, "fail")],
        )

    def __call__(self, samples: Float32) -> Labelled:
        """Labels and posteriors of a whole recording, float32[n_samples]."""
        self._lane.reset()
        labels: list[Label] = []
        rows = [np.zeros((0, self._n_units), np.float32)]
        steps = [*self._lane.process(Block(0, samples[:, None])), *self._lane.flush()]
        for step in steps:
            for event in step.events:
                if isinstance(event, Label) and event.status == "final":
                    labels.append(event)
                elif isinstance(event, Posteriors):
                    rows.append(event.values)
        return Labelled(sorted(labels, key=lambda a: a.onset), np.concatenate(rows))
