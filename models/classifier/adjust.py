"""Calibration of a trained classifier and choice of its detector's options.

Temperatures and thresholds are fitted to validation recordings. The typical segments of
units use training recordings as well: so few numbers do not overfit. Detectors are
fitted to training recordings, and one is chosen by validation recordings.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from neurovocal.engine.contracts.bundle import ClassifierSpec, DetectorSpec, EarlySpec
from neurovocal.models.classifier.calibration import (
    DecisionRule,
    collect_early_scores,
    collect_scores,
    fit_temperature,
    fit_thresholds,
    fit_typical_segments,
    log_softmax,
)
from neurovocal.models.classifier.detector_search import (
    ScoredRecording,
    fit_detector,
    select_evenly,
)
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.prepare import PreparedDataset
from neurovocal.models.toolkit.measures import Float64
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.recipe import ClassifierConfig, TrainConfig

# Delays after onset, in milliseconds, that early labels are calibrated for.
EARLY_MS = (0.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0)
# A delay that fewer segments reach is not calibrated.
_MIN_SEGMENTS = 20


@dataclass(frozen=True, slots=True)
class CalibratedClassifier:
    """Manifest entries of a calibrated classifier and of its detector."""

    spec: ClassifierSpec
    detector: DetectorSpec


def adjust_classifier(
    model: Classifier,
    config: TrainConfig,
    data: PreparedDataset,
    on_progress: ProgressCallback = lambda share, note: None,
    check_stop: Callable[[], None] = lambda: None,
    limit_s: float = math.inf,
) -> CalibratedClassifier:
    """Calibrate a trained classifier and fit the detector to it.

    Parameters
    ----------
    model : Classifier
        Trained network.
    config : TrainConfig
        Recipe; it must have a classifier.
    data : PreparedDataset
        Training and validation splits.
    on_progress : callable
        Receives the share of the detector search that is done.
    check_stop : callable
        Called between two tries of the search; raises an exception to end it.
    limit_s : float
        Wall-clock seconds that the search may take.
    """
    assert config.classifier is not None
    model.eval()
    valid = [log_posteriors_of(model, m) for m in data.valid]
    spec = calibrate(model, config.classifier, data, valid)
    # A generator: log-posteriors of hours of training recordings take much memory.
    train = (log_posteriors_of(model, m) for m in data.train)
    spec = _add_typical(spec, config.classifier, data, chain(train, valid))
    detector_config = config.detector
    detector = DetectorSpec(
        plugin=detector_config.plugin, options=detector_config.options
    )
    if detector_config.fit:
        limit = detector_config.limit_s

        def scored(split: Sequence[LabelledFrames], s: float) -> list[ScoredRecording]:
            return [
                ScoredRecording(m, log_posteriors_of(model, m), data.front_end, spec)
                for m in select_evenly(split, s)
            ]

        detector = fit_detector(
            scored(data.train, limit),
            scored(data.valid, limit / 2),
            detector_config,
            on_progress,
            check_stop,
            limit_s,
        )
    return CalibratedClassifier(spec, detector)


def log_posteriors_of(model: Classifier, example: LabelledFrames) -> Float64:
    """Compute the log-posteriors of all frames, float64[n_frames, n_units]."""
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(example.clipped)[None])
    return log_softmax(logits[0].numpy())


def calibrate(
    model: Classifier,
    config: ClassifierConfig,
    data: PreparedDataset,
    logs: list[Float64],
) -> ClassifierSpec:
    """Fit temperatures and thresholds to the validation recordings.

    Parameters
    ----------
    model : Classifier
        Trained network, whose state shapes the result lists.
    config : ClassifierConfig
        Margins of the thresholds and objective of the training.
    data : PreparedDataset
        Validation split and units.
    logs : list of float64[n_frames, n_units]
        Log-posteriors of each validation recording.
    """
    names, spans = data.units.names, [m.spans for m in data.valid]
    rule: DecisionRule = "last" if config.objective == "last" else "vote"
    scores = collect_scores(logs, spans, rule)
    temperature = round(fit_temperature(scores), 3)
    margin, cap = config.unknown_margin, config.unknown_cap
    early: list[EarlySpec] = []
    per_ms = data.front_end.sample_rate / 1000 / data.front_end.hop_length
    for n_frames in sorted({max(1, round(ms * per_ms)) for ms in EARLY_MS}):
        early_scores = collect_early_scores(logs, spans, n_frames, rule)
        if early and len(early_scores.unit) < _MIN_SEGMENTS:
            break
        early_temperature = round(fit_temperature(early_scores), 3)
        own = fit_thresholds(early_scores, early_temperature, names, margin, cap)
        thresholds = {
            name: max(own.get(name, 0.0), config.early_posterior) for name in names[1:]
        }
        early.append(
            EarlySpec(
                frames=n_frames, temperature=early_temperature, thresholds=thresholds
            )
        )
    return ClassifierSpec(
        units=names,
        silence=names[0],
        state=model.shapes,
        decision=rule,
        temperature=temperature,
        thresholds=fit_thresholds(scores, temperature, names, margin, cap),
        early=early,
        provisional_ms=config.provisional_ms,
    )


def _add_typical(
    spec: ClassifierSpec,
    config: ClassifierConfig,
    data: PreparedDataset,
    logs: Iterable[Float64],
) -> ClassifierSpec:
    """Add the limits of typical segments of each unit to `spec`."""
    typical = fit_typical_segments(
        logs,
        [m.spans for m in (*data.train, *data.valid)],
        spec.units,
        config.duration_margin,
        config.agreement_margin,
        spec.decision,
    )
    return spec.model_copy(update={"typical": typical})
