"""Evaluation of a bundle's forecast, and of labels with and without it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.classifier.forecast.network import split_phrases
from neurovocal.models.classifier.forecast.prior import (
    DELAYS_MS,
    ClassifiedRecordings,
    collect_scores_by_delay,
    forecast_units,
    frames_within,
)
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import LabelledFrames, read_samples
from neurovocal.models.data.targets import Units, targets_of
from neurovocal.models.toolkit.measures import Float64
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.plugins.models.classifier.network import FrameNetwork
from neurovocal.plugins.models.forecast import forecast_weight
from neurovocal.plugins.models.history import log_softmax


def evaluate_forecast(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording], units: Units
) -> dict[str, Any]:
    """Measure forecasts against baselines, and labels after delays with and without.

    All measures are of annotated segments, given the annotated units before them.

    Parameters
    ----------
    bundle : Bundle
        Bundle with a classifier and a forecast.
    recordings : sequence of AnnotatedRecording
        Recordings to measure.
    units : Units
        Units of the bundle, silence first.

    Returns
    -------
    dict
        Numbers by name; docs/research/prior.md explains them.
    """
    spec, classifier = bundle.manifest.forecast, bundle.manifest.classifier
    assert spec is not None
    assert classifier is not None
    classified = classify_recordings(bundle, recordings, units)
    n_units = len(units.names) - 1
    session = Session(bundle.path(spec.file))
    zeros = np.zeros(spec.n_recurrent, np.float32)

    def predict(tokens: Float32, gaps: Float32) -> Float32:
        return session.run(tokens=tokens, gaps=gaps, u=zeros)["log_posteriors"]

    def predicted(at_onset: bool) -> Float64:
        return forecast_units(
            predict,
            n_units,
            spec.gap_edges_ms,
            classified,
            spec.pause_ms,
            at_onset=at_onset,
        )

    segments = collect_scores_by_delay(classified, predicted(True))
    figures: dict[str, Any] = {"segments": len(segments.unit)}
    if not len(segments.unit):
        return figures
    rows = {"before_onset": predicted(False), "at_onset": segments.forecast}
    phrases = split_phrases(classified.examples, classified.frame_ms, spec.pause_ms)
    counts = np.array(spec.followed, float)
    before = [np.concatenate([[n_units], p.units[:-1]]) for p in phrases]
    rows |= baseline_forecasts(counts, np.concatenate(before))
    for name, logs in rows.items():
        correct, nats = score_predictions(logs, segments.unit)
        figures[f"foretold_{name}_percent"] = round(100 * float(correct.mean()), 2)
        figures[f"nats_{name}"] = round(float(nats.mean()), 4)
    frames = [
        d if d is None else frames_within(d, classified.front_end) for d in DELAYS_MS
    ]
    with_prior = segments.correct([forecast_weight(spec, n) for n in frames])
    without = segments.correct([0.0] * len(DELAYS_MS))
    for row, delay_ms in enumerate(DELAYS_MS):
        when = "at_offset" if delay_ms is None else f"{delay_ms:g}_ms_after_onset"
        figures[f"right_{when}_percent"] = round(100 * float(without[row].mean()), 2)
        share = round(100 * float(with_prior[row].mean()), 2)
        figures[f"right_{when}_with_forecast_percent"] = share
    return figures


def score_predictions(
    log_posteriors: Float64, unit: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], Float64]:
    """Score predictions against the units that followed.

    Parameters
    ----------
    log_posteriors : float64[n_segments, n_units]
    unit : int64[n_segments]

    Returns
    -------
    correct : bool[n_segments]
        True if the likeliest unit followed.
    nats : float64[n_segments]
        Negative log-probability of the unit that followed.
    """
    correct: NDArray[np.bool_] = log_posteriors.argmax(axis=1) == unit
    nats: Float64 = -log_posteriors[np.arange(len(unit)), unit]
    return correct, nats


def baseline_forecasts(
    followed: Float64, before: NDArray[np.int64]
) -> dict[str, Float64]:
    """Predict units by their frequency, and by the unit before.

    Parameters
    ----------
    followed : float64[n_units + 1, n_units]
        Counts of pairs in training, as in `ForecastSpec.followed`.
    before : int64[n_segments]
        Unit before each segment; n_units at the start of a phrase.

    Returns
    -------
    dict
        Log-probabilities `by_frequency` and `by_bigram`, float64[n_segments, n_units].
        The counts of a unit's successors get one pseudo-count, divided by frequency.
    """
    frequency = followed.sum(axis=0) + 0.5
    frequency /= frequency.sum()
    pairs = (followed + frequency) / (followed.sum(axis=1, keepdims=True) + 1)
    return {
        "by_frequency": np.log(np.tile(frequency, (len(before), 1))),
        "by_bigram": np.log(pairs)[before],
    }


def classify_recordings(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording], units: Units
) -> ClassifiedRecordings:
    """Compute frames, targets and a bundle's log-posteriors of recordings."""
    front_end, spec = bundle.manifest.front_end, bundle.manifest.classifier
    assert spec is not None
    rate = front_end.sample_rate
    columns = [spec.units.index(name) for name in units.names]
    features = build_front_end(front_end, bundle)
    network = FrameNetwork(bundle)
    examples, logs = [], []
    for recording in recordings:
        frames = frames_of(features, read_samples(recording, rate))
        target, spans = targets_of(
            recording,
            units,
            len(frames),
            rate,
            front_end.hop_length,
            front_end.frame_length,
        )
        examples.append(LabelledFrames(recording, frames, target, spans))
        network.reset()
        if len(frames):
            logs.append(log_softmax(network(frames))[:, columns])
        else:
            logs.append(_no_frames(columns))
    return ClassifiedRecordings(examples, logs, front_end, spec)


def _no_frames(columns: Sequence[int]) -> Float64:
    """Return the log-posteriors of a recording without frames."""
    return np.zeros((0, len(columns)))
