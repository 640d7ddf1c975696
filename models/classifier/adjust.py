"""What is fitted to a trained classifier before it is exported.

Temperatures and thresholds come from validation recordings; the detector's options
and what units are like from training recordings, too: a handful of numbers does not
overfit them.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

import torch

from neurovocal.engine.contracts.bundle import ClassifierSpec, DetectorSpec, EarlySpec
from neurovocal.models.classifier.calibration import (
    DecisionRule,
    Float64,
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
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.recipe import ClassifierConfig, TrainConfig

# Delays after onset, in milliseconds, that early labels are calibrated for.
EARLY_MS = (0.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0)
# With fewer segments that last so long, a delay has no calibration of its own.
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class CalibratedClassifier:
    """A classifier's calibration, and the detector that belongs to it."""

    spec: ClassifierSpec
    detector: DetectorSpec


def adjust_classifier(
    model: Classifier,
    config: TrainConfig,
    data: PreparedDataset,
    watch: ProgressCallback = lambda share, note: None,
    stop: Callable[[], None] = lambda: None,
    patience_s: float = math.inf,
) -> CalibratedClassifier:
    """Calibrate a trained classifier and fit the detector to it.

    Parameters
    ----------
    model : Classifier
    config : TrainConfig
        With a classifier.
    data : PreparedDataset
    watch : callable
        Told the share that is done.
    stop : callable
        Called now and then; raises to end the work.
    patience_s : float
        Wall-clock seconds that the detector's options are looked for.
    """
    assert config.classifier is not None
    model.eval()
    valid = [log_posteriors_of(model, m) for m in data.valid]
    spec = calibrate(model, config.classifier, data, valid)
    # One after the other, and let go of: there may be hours.
    train = (log_posteriors_of(model, m) for m in data.train)
    spec = _with_typical(spec, config.classifier, data, chain(train, valid))
    wanted = config.detector
    detector = DetectorSpec(plugin=wanted.plugin, options=wanted.options)
    if wanted.fit:
        heard = [
            ScoredRecording(m, log_posteriors_of(model, m), data.front_end, spec)
            for m in select_evenly([*data.train, *data.valid], wanted.limit_s)
        ]
        detector = fit_detector(heard, wanted.options, watch, stop, patience_s)
    return CalibratedClassifier(spec, detector)


def log_posteriors_of(model: Classifier, example: LabelledFrames) -> Float64:
    """Of every frame of a recording, float64[n_frames, n_units]."""
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(example.clipped)[None])
    return log_softmax(logits[0].numpy())


def calibrate(
    model: Classifier,
    config: ClassifierConfig,
    data: PreparedDataset,
    logs: list[Float64],
) -> ClassifierSpec:
    """Temperatures and thresholds from validation recordings.

    Parameters
    ----------
    model : Classifier
    config : ClassifierConfig
    data : PreparedDataset
    logs : list of float64[n_frames, n_units]
        Of the validation recordings.
    """
    names, spans = data.units.names, [m.spans for m in data.valid]
    decision: DecisionRule = "last" if config.objective == "last" else "vote"
    votes = collect_scores(logs, spans, decision)
    temperature = round(fit_temperature(votes), 3)
    margin, cap = config.unknown_margin, config.unknown_cap
    early: list[EarlySpec] = []
    per_ms = data.front_end.sample_rate / 1000 / data.front_end.hop_length
    for n_frames in sorted({max(1, round(ms * per_ms)) for ms in EARLY_MS}):
        some = collect_early_scores(logs, spans, n_frames, decision)
        if early and len(some.unit) < _FEWEST:
            break
        warmth = round(fit_temperature(some), 3)
        own = fit_thresholds(some, warmth, names, margin, cap)
        least = {name: config.early_posterior for name in names[1:]}
        asked = {name: max(own.get(name, 0.0), low) for name, low in least.items()}
        early.append(EarlySpec(frames=n_frames, temperature=warmth, thresholds=asked))
    return ClassifierSpec(
        units=names,
        silence=names[0],
        state=model.shapes,
        decision=decision,
        temperature=temperature,
        thresholds=fit_thresholds(votes, temperature, names, margin, cap),
        early=early,
        provisional_ms=config.provisional_ms,
    )


def _with_typical(
    spec: ClassifierSpec,
    config: ClassifierConfig,
    data: PreparedDataset,
    logs: Iterable[Float64],
) -> ClassifierSpec:
    """Same, with what segments of each unit are like in all recordings."""
    typical = fit_typical_segments(
        logs,
        [m.spans for m in (*data.train, *data.valid)],
        spec.units,
        config.duration_margin,
        config.agreement_margin,
        spec.decision,
    )
    return spec.model_copy(update={"typical": typical})
