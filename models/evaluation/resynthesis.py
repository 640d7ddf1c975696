"""Labels of resynthesized song beside those of the original.

Each recording is converted to frames of the bundle's front end and back to sound by the
streaming inverse; both sounds are labelled by a lane of the engine, detector included.
A segment of the original agrees if the resynthesized sound has a segment of the same
unit that overlaps with it by at least half of what the two cover together.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import typer

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32, Label
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.engine.support.text import printable
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import read_samples
from neurovocal.models.evaluation.labelling import Labeller
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.plugins.features.inverse import InverseSpectrogram

_LEAST_IOU = 0.5
_MOST_DIFFERENCES = 8


@dataclass
class RoundTrip:
    """Counts of segments whose labels the resynthesized sound keeps.

    Parameters
    ----------
    n_segments : int
        Of the originals.
    same, renamed, missing, added : int
        Segments of the same unit, of another one, without a counterpart, and segments
        of the resynthesized sound without one.
    differences : Counter
        Pairs of units (of the original, of the resynthesized sound; empty: none).
    seconds : float
    """

    n_segments: int = 0
    same: int = 0
    renamed: int = 0
    missing: int = 0
    added: int = 0
    differences: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, original: Sequence[Label], again: Sequence[Label]) -> None:
        """Count one recording; labels are final ones in order of their onsets."""
        taken: set[int] = set()
        for label in original:
            overlaps = [
                (_overlap(label, other), -k)
                for k, other in enumerate(again)
                if k not in taken
            ]
            best, number = max(overlaps, default=(0.0, 0))
            self.n_segments += 1
            if best < _LEAST_IOU:
                self.missing += 1
                self.differences[label.unit, ""] += 1
                continue
            taken.add(-number)
            found = again[-number].unit
            if found == label.unit:
                self.same += 1
            else:
                self.renamed += 1
                self.differences[label.unit, found] += 1
        self.added += len(again) - len(taken)
        for k, other in enumerate(again):
            if k not in taken:
                self.differences["", other.unit] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON; shares in percent of the originals' segments."""
        n = max(self.n_segments, 1)
        return {
            "seconds": round(self.seconds, 1),
            "segments": self.n_segments,
            "same": self.same,
            "same_percent": round(100 * self.same / n, 2),
            "renamed": self.renamed,
            "missing": self.missing,
            "added": self.added,
            "differences": [
                {"original": a, "resynthesized": b, "count": count}
                for (a, b), count in self.differences.most_common(_MOST_DIFFERENCES)
            ],
        }


def _overlap(a: Label, b: Label) -> float:
    """Return what two segments share of what they cover together."""
    if a.offset is None or b.offset is None:
        return 0.0
    shared = min(a.offset, b.offset) - max(a.onset, b.onset)
    return max(0.0, shared / (max(a.offset, b.offset) - min(a.onset, b.onset)))


def resynthesize(bundle: Bundle, samples: Float32) -> Float32:
    """Return the sound of the frames of a recording, float32[n_samples].

    Samples after the last whole frame are silent, so that both have one length.

    Parameters
    ----------
    bundle : Bundle
    samples : float32[n_samples]
        At the bundle's rate.
    """
    front_end = bundle.manifest.front_end
    frames = frames_of(build_front_end(front_end, bundle), samples)
    inverse = InverseSpectrogram(front_end, bundle)
    sound = np.concatenate([inverse.process(frames), inverse.flush()])
    again = np.zeros_like(samples)
    again[: len(sound)] = sound[: len(samples)]
    return again


def measure_round_trip(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    on_share: Callable[[float], None] | None = None,
) -> RoundTrip:
    """Label recordings and their resynthesis, and count the labels that agree.

    Raises
    ------
    ConfigError
        The bundle has no classifier, its front end has no inverse, or nothing was
        found in the recordings.
    """
    if bundle.manifest.classifier is None:
        raise ConfigError("--resynthesis compares labels: the bundle has no classifier")
    labeller = Labeller(bundle)
    rate = bundle.manifest.front_end.sample_rate
    result = RoundTrip()
    for number, recording in enumerate(recordings):
        samples = read_samples(recording, rate)
        again = resynthesize(bundle, samples)
        result.add(labeller(samples).labels, labeller(again).labels)
        result.seconds += len(samples) / rate
        if on_share is not None:
            on_share((number + 1) / len(recordings))
    if result.n_segments == 0:
        raise ConfigError("no segments were found in these recordings")
    return result


def evaluate_round_trip(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording], as_json: bool
) -> None:
    """Measure the labels of resynthesized recordings, and print them."""
    with Reporter().stage("resynthesis") as on_progress:
        result = measure_round_trip(
            bundle, recordings, lambda share: on_progress(share, "")
        )
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
    else:
        print_round_trip(result)


def print_round_trip(result: RoundTrip) -> None:
    """Print how many labels are kept, and which differ most often."""
    figures = result.as_dict()
    typer.echo(
        f"{figures['same']} of {figures['segments']} segments in "
        f"{figures['seconds']:g} s keep their label: {figures['same_percent']:g} %"
    )
    typer.echo(
        f"{figures['renamed']} with another label, {figures['missing']} not found "
        f"again, {figures['added']} more than in the recordings"
    )
    for row in figures["differences"]:
        before, after = row["original"] or "none", row["resynthesized"] or "none"
        typer.echo(printable(f"{row['count']:6}  {before} -> {after}"))
