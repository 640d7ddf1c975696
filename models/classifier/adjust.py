"""Calibration of a trained classifier and choice of its detector's options.

Temperatures, thresholds and typical segments are fitted to what the networks of a
cross-validation say of the recordings that they were not trained on. Detectors are
fitted to recordings of the training split, and one is chosen by those of validation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import (
    ClassifierSpec,
    DetectorSpec,
    EarlySpec,
    TypicalSpec,
)
from neurovocal.models.classifier.abstention import (
    NamedSegments,
    accepted,
    choose_thresholds,
    choose_typical,
)
from neurovocal.models.classifier.calibration import (
    DecisionRule,
    collect_early_scores,
    collect_scores,
    fit_temperature,
    fit_thresholds,
    fit_typical_segments,
)
from neurovocal.models.classifier.cross_validation import CrossValidated
from neurovocal.models.classifier.detector_search import (
    LabelErrors,
    ScoredRecording,
    detected_segments,
    fit_detector,
    select_evenly,
)
from neurovocal.models.classifier.ends import fit_ends
from neurovocal.models.classifier.sure import (
    choose_sure,
    early_detector,
    early_names,
)
from neurovocal.models.data.prepare import PreparedDataset
from neurovocal.models.data.targets import FrameSpan
from neurovocal.models.toolkit.measures import Float64
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.toolkit.recipe import ClassifierConfig, TrainConfig

# Delays after onset, in milliseconds, that early labels are calibrated for.
EARLY_MS = (0.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0)
# A delay that fewer segments reach is not calibrated.
_MIN_SEGMENTS = 20
# Recordings that were left out are measured up to this many seconds, evenly.
_MOST_MEASURED_S = 1800.0
# Bootstrap of the errors' intervals.
_INTERVAL_DRAWS, _INTERVAL_SEED = 2000, 0


@dataclass(frozen=True, slots=True)
class CalibratedClassifier:
    """Manifest entries of a calibrated classifier and of its detector."""

    spec: ClassifierSpec
    detector: DetectorSpec
    figures: dict[str, Any] = field(default_factory=dict)
    """Errors on recordings that were left out, with intervals."""


def adjust_classifier(
    validated: CrossValidated,
    config: TrainConfig,
    data: PreparedDataset,
    on_progress: ProgressCallback = lambda share, note: None,
    check_stop: Callable[[], None] = lambda: None,
    limit_s: float = math.inf,
) -> CalibratedClassifier:
    """Calibrate a classifier and fit the detector to it.

    Parameters
    ----------
    validated : CrossValidated
        Networks that left recordings out, trained as the classifier is.
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
    left_out = validated.folds.left_out
    chosen = [validated.examples[n] for n in left_out]
    logs = [validated.log_posteriors(n) for n in left_out]
    spans = [m.spans for m in chosen]
    hop_ms = 1000 * data.front_end.hop_length / data.front_end.sample_rate
    shapes = validated.networks[0].shapes
    spec = calibrate(shapes, config.classifier, data.units.names, hop_ms, logs, spans)

    def typical(duration: float, agreement: float) -> dict[str, TypicalSpec]:
        rule = spec.decision
        return fit_typical_segments(logs, spans, spec.units, duration, agreement, rule)

    least = (config.classifier.duration_margin, config.classifier.agreement_margin)
    spec = spec.model_copy(update={"typical": typical(*least)})
    detector = DetectorSpec(
        plugin=config.detector.plugin, options=config.detector.options
    )

    def scored(numbers: Sequence[int], s: float) -> list[ScoredRecording]:
        by_example = {id(validated.examples[n]): n for n in numbers}
        found = select_evenly([validated.examples[n] for n in numbers], s)
        return [
            ScoredRecording(
                m, validated.log_posteriors(by_example[id(m)]), data.front_end, spec
            )
            for m in found
        ]

    if config.detector.fit:
        limit, n_train = config.detector.limit_s, len(data.train)
        detector = fit_detector(
            scored(range(n_train), limit),
            scored(range(n_train, len(validated.examples)), limit / 2),
            config.detector,
            on_progress,
            check_stop,
            limit_s,
        )
    measured = scored(left_out, _MOST_MEASURED_S)
    segments = detected_segments(measured, detector)
    spec = choose_abstentions(spec, config.classifier, measured, segments, typical)
    measured = [replace(recording, spec=spec) for recording in measured]
    found = [*zip(measured, segments, strict=True)]
    rows = [row for recording, one in found for row in recording.end_rows(one)]
    spec = spec.model_copy(update={"ends": fit_ends(rows, spec.units)})
    early = early_names(measured, detected_segments(measured, early_detector(detector)))
    sure = choose_sure(early, spec, config.classifier.early_wrong)
    spec = spec.model_copy(update={"sure": sure})
    errors = [replace(each, spec=spec).label_errors(one) for each, one in found]
    return CalibratedClassifier(spec, detector, _figures_of(errors))


def choose_abstentions(
    spec: ClassifierSpec,
    config: ClassifierConfig,
    recordings: Sequence[ScoredRecording],
    segments: Sequence[Sequence[tuple[int, int]]],
    typical: Callable[[float, float], dict[str, TypicalSpec]],
) -> ClassifierSpec:
    """Choose thresholds and typical segments by the cost of wrong names and of none.

    Parameters
    ----------
    spec : ClassifierSpec
        Calibrated decision.
    config : ClassifierConfig
        Cost and least margins.
    recordings : sequence of ScoredRecording
        Recordings that were left out.
    segments : sequence of sequence of (int, int)
        Detected segments ``[onset, offset)`` of each, in samples.
    typical : callable
        Maps margins of duration and agreement to limits by unit.
    """
    rows = [
        row
        for recording, found in zip(recordings, segments, strict=True)
        for row in recording.named(found)
    ]
    named = NamedSegments.of(rows)
    least = (config.duration_margin, config.agreement_margin)
    limits = choose_typical(named, spec.units, config.unknown_cost, typical, least)
    spec = spec.model_copy(update={"typical": limits})
    thresholds = choose_thresholds(
        accepted(named, spec), spec.units, config.unknown_cost, config.unknown_margin
    )
    capped = {name: min(p, config.unknown_cap) for name, p in thresholds.items()}
    return spec.model_copy(update={"thresholds": capped})


def calibrate(
    shapes: Mapping[str, list[int]],
    config: ClassifierConfig,
    names: list[str],
    hop_ms: float,
    logs: list[Float64],
    spans: list[list[FrameSpan]],
) -> ClassifierSpec:
    """Fit temperatures, and thresholds of labels before the offset.

    Parameters
    ----------
    shapes : mapping
        Shapes of the network's state, which the result lists.
    config : ClassifierConfig
        Margins of the thresholds and objective of the training.
    names : list of str
        Unit names, silence first.
    hop_ms : float
        Milliseconds between two frames.
    logs : list of float64[n_frames, n_units]
        Log-posteriors of each recording that was left out.
    spans : list of list of FrameSpan
        Its annotated segments.
    """
    rule: DecisionRule = "last" if config.objective == "last" else "vote"
    scores = collect_scores(logs, spans, rule)
    temperature = round(fit_temperature(scores), 3)
    margin, cap = config.unknown_margin, config.unknown_cap
    early: list[EarlySpec] = []
    for n_frames in sorted({max(1, round(ms / hop_ms)) for ms in EARLY_MS}):
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
        state=dict(shapes),
        decision=rule,
        temperature=temperature,
        thresholds={},
        early=early,
        provisional_ms=config.provisional_ms,
    )


def _figures_of(errors: Sequence[LabelErrors]) -> dict[str, Any]:
    """Return frame and syllable errors in percent, each with a 95 % interval.

    Parameters
    ----------
    errors : sequence of LabelErrors
        Of each recording. The interval is that of a bootstrap over recordings.
    """
    counts = np.array(
        [
            (e.frames.errors, e.frames.total, e.syllables.errors, e.syllables.total)
            for e in errors
        ],
        np.int64,
    ).reshape(len(errors), 4)
    figures: dict[str, Any] = {
        "recordings": len(errors),
        "syllables": int(counts[:, 3].sum()),
    }
    for name, column in (("frame_error_final", 0), ("syllable_error", 2)):
        wrong, total = counts[:, column], counts[:, column + 1]
        if not total.sum():
            continue
        figures[f"{name}_percent"] = round(100 * wrong.sum() / total.sum(), 3)
        low, high = _interval(wrong, total)
        figures[f"{name}_low_percent"], figures[f"{name}_high_percent"] = low, high
    return figures


def _interval(
    wrong: NDArray[np.int64], total: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the error over drawn recordings."""
    rng = np.random.default_rng(_INTERVAL_SEED)
    rows = rng.integers(len(wrong), size=(_INTERVAL_DRAWS, len(wrong)))
    shares = 100 * wrong[rows].sum(axis=1) / np.maximum(total[rows].sum(axis=1), 1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)
