"""Set what the profile `fast` needs in a bundle that was trained before it existed.

From the recordings that trained the bundle comes the noise floor with which its
`energy` detector begins a stream, from those of its validation the scores at which each
unit is named early (`neurovocal.models.classifier.sure`). A training does both by
itself. Prints the new values; ``--write`` puts them into the bundle and seals it.

    python bench/labels/early_labels.py BUNDLE DATASET [--wrong 0.01] [--write]
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle, DetectorSpec, load_bundle
from neurovocal.models.classifier.detector_search import (
    ScoredRecording,
    detected_segments,
)
from neurovocal.models.classifier.sure import choose_sure, early_detector, early_names
from neurovocal.models.data.datasets import AnnotatedRecording, read_dataset
from neurovocal.models.data.frames import LabelledFrames, read_samples
from neurovocal.models.data.targets import Units, targets_of
from neurovocal.models.evaluation.labelling import Labeller
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.training.export.bundle import write_manifest
from neurovocal.models.tuning.floors import level_between
from neurovocal.models.tuning.heard import Stretch
from neurovocal.plugins.detectors.energy import EnergyOptions


def main() -> int:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--wrong", type=float, default=0.01)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    bundle = load_bundle(str(options.bundle))
    spec = bundle.manifest.classifier
    assert spec is not None
    split = bundle.manifest.training["recordings"]
    recordings = read_dataset(options.dataset).recordings
    train, valid = (
        [r for r in recordings if r.file in split[part]] for part in ("train", "valid")
    )
    detector = with_floor(bundle, [*train, *valid])
    scored = [scored_recording(bundle, recording) for recording in valid]
    found = detected_segments(scored, early_detector(detector))
    names = early_names(scored, found)
    sure = choose_sure(names, spec, options.wrong)
    scores = np.array([sure.get(unit, 1.0) for unit in spec.units])
    before = names.counts(np.full(len(spec.units), 0.5))
    for title, counts in (("at 0.5", before), ("chosen", names.counts(scores))):
        shares = (f"{100 * n / names.n_vocalizations:.1f}" for n in counts)
        print(title, "soon and right, wrong, false in %:", *shares)
    print(detector.fast_options, sure)
    if options.write:
        changed = bundle.manifest.model_copy(
            update={
                "detector": detector,
                "classifier": spec.model_copy(update={"sure": sure}),
            }
        )
        write_manifest(bundle.folder, changed)
    return 0


def with_floor(bundle: Bundle, recordings: list[AnnotatedRecording]) -> DetectorSpec:
    """Return the detector with the floor between annotated segments as option of fast.

    The bundle's other figures were measured without it.
    """
    detector = bundle.manifest.detector
    assert detector is not None
    assert detector.plugin == "energy"
    rate = bundle.manifest.front_end.sample_rate
    stretches = []
    for recording in recordings:
        samples = read_samples(recording, rate)
        spans = [(a.onset_s, a.offset_s) for a in recording.annotations]
        whole = [(0.0, len(samples) / rate)]
        stretches.append(Stretch(samples, rate, spans, whole))
    options = EnergyOptions.model_validate(detector.options)
    floor = level_between(stretches, options)
    more = {} if floor is None else {"floor_db": floor}
    return detector.model_copy(update={"fast_options": more})


def scored_recording(bundle: Bundle, recording: AnnotatedRecording) -> ScoredRecording:
    """Return a recording with the log-posteriors of the bundle's classifier."""
    front_end, spec = bundle.manifest.front_end, bundle.manifest.classifier
    assert spec is not None
    rate = front_end.sample_rate
    labelled = Labeller(bundle, tile=1)(read_samples(recording, rate))
    logs = np.log(np.maximum(labelled.posteriors.astype(np.float64), 1e-30))
    labels = {a.unit for a in recording.annotations}
    index = dict.fromkeys(labels, IGNORED)
    index |= {name: n for n, name in enumerate(spec.units) if name != spec.silence}
    target, spans = targets_of(
        recording,
        Units(spec.units, index),
        len(logs),
        rate,
        front_end.hop_length,
        front_end.frame_length,
    )
    frames = np.zeros((len(logs), front_end.n_bins), np.float32)
    return ScoredRecording(
        LabelledFrames(recording, frames, target, spans), logs, front_end, spec
    )


if __name__ == "__main__":
    sys.exit(main())
