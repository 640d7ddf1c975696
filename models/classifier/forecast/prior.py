"""Forecast as a prior for the classifier: scores after delays, and fitted weights.

It is the product of experts of the RNN-RBM's paper (section 7) for a whole segment:
with S_n(k) the log-posteriors of unit k summed over the first n frames, T_n the
temperature that calibrates n frames, and log p(k) the forecast,

    score(k) = S_n(k) / T_n + w_n log p(k)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import ClassifierSpec, FrontEnd, PriorSpec
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.forecast.network import phrase_inputs, split_phrases
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.toolkit.measures import Float64
from neurovocal.plugins.models.classifier.decision import LabelDecision

# Delays after the onset in ms at which labels are scored; None: the whole segment.
DELAYS_MS: tuple[float | None, ...] = (0, 5, 10, 20, 30, 50, None)
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
Predict: TypeAlias = Callable[[Float32, Float32], Float32]


@dataclass(frozen=True, slots=True, eq=False)
class ScoresByDelay:
    """Classifier scores and forecasts of segments after each of `DELAYS_MS`.

    Parameters
    ----------
    scores : float64[n_delays, n_segments, n_units]
        Calibrated log-posteriors of the units without silence, summed over the frames
        of the segment that are complete at the delay; without one, those of the last
        frame before the segment.
    forecast : float64[n_segments, n_units]
        Log-probabilities of the units at the onset.
    unit : int64[n_segments]
        Annotated unit, from 0.
    recording : int64[n_segments]
        Number of the recording of each segment.
    """

    scores: Float64
    forecast: Float64
    unit: NDArray[np.int64]
    recording: NDArray[np.int64]

    def log_posteriors(self, weights: Sequence[float]) -> Float64:
        """Combine scores and forecast, float64[n_delays, n_segments, n_units].

        Parameters
        ----------
        weights : sequence of float
            Weight of the forecast at each delay.
        """
        scores = self.scores + np.array(weights)[:, None, None] * self.forecast
        scores -= scores.max(axis=-1, keepdims=True)
        logs: Float64 = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        return logs

    def correct(self, weights: Sequence[float]) -> NDArray[np.bool_]:
        """Return whether the likeliest unit is correct, bool[n_delays, n_segments]."""
        likeliest = self.log_posteriors(weights).argmax(-1)
        correct: NDArray[np.bool_] = likeliest == self.unit
        return correct


@dataclass(frozen=True, slots=True, eq=False)
class ClassifiedRecordings:
    """Annotated recordings with a classifier's log-posteriors.

    Parameters
    ----------
    examples : sequence of LabelledFrames
        Recordings with annotated segments.
    log_posteriors : sequence of float64[n_frames, n_units]
        One array per recording; silence is column 0.
    front_end : FrontEnd
        Front end of the frames.
    spec : ClassifierSpec
        Decision rule and calibration of the classifier.
    """

    examples: Sequence[LabelledFrames]
    log_posteriors: Sequence[Float64]
    front_end: FrontEnd
    spec: ClassifierSpec

    @property
    def frame_ms(self) -> float:
        """Milliseconds between two frames."""
        return 1000 * self.front_end.hop_length / self.front_end.sample_rate


def forecast_units(
    predict: Predict,
    n_units: int,
    edges: Sequence[float],
    recordings: ClassifiedRecordings,
    pause_ms: float,
    *,
    at_onset: bool = True,
) -> Float64:
    """Predict each annotated unit from the annotated units before it.

    Parameters
    ----------
    predict : callable
        Maps the tokens and gaps of a phrase (`phrase_inputs`) to log-probabilities.
    n_units : int
        Number of units without silence.
    edges : sequence of float
        Edges of the bins of silence, in ms.
    recordings : ClassifiedRecordings
        Recordings with annotated segments.
    pause_ms : float
        Silence that ends a phrase.
    at_onset : bool
        True if the silence before the predicted unit is known.

    Returns
    -------
    float64[n_segments, n_units]
        Log-probabilities for all segments, in order.
    """
    rows = [np.zeros((0, n_units))]
    for phrase in split_phrases(recordings.examples, recordings.frame_ms, pause_ms):
        tokens, gaps = phrase_inputs(phrase, n_units, edges)
        known_gaps = gaps if at_onset else np.zeros_like(gaps)
        rows.append(predict(tokens, known_gaps).astype(np.float64))
    return np.concatenate(rows)


def frames_within(delay_ms: float, front_end: FrontEnd) -> int:
    """Return the mean number of a segment's frames that are complete after a delay.

    A frame is complete half of its length after its centre; the first frame of a
    segment is centred half a hop after the onset on average.
    """
    samples = delay_ms * front_end.sample_rate / 1000
    remaining = samples - (front_end.frame_length + front_end.hop_length) / 2
    return max(0, 1 + int(np.floor(remaining / front_end.hop_length)))


def collect_scores_by_delay(
    recordings: ClassifiedRecordings, forecast: Float64
) -> ScoresByDelay:
    """Collect the scores of all segments after each delay, with their forecasts.

    Parameters
    ----------
    recordings : ClassifiedRecordings
        Recordings with annotated segments.
    forecast : float64[n_segments, n_units]
        Log-probabilities of `forecast_units`.
    """
    scores: list[list[Float64]] = [[] for _ in DELAYS_MS]
    units, recording_numbers = [], []
    by_last, decision = (
        recordings.spec.decision == "last",
        LabelDecision(recordings.spec),
    )
    for number, (example, rows) in enumerate(
        zip(recordings.examples, recordings.log_posteriors, strict=True)
    ):
        for span in example.spans:
            units.append(span.unit - 1)
            recording_numbers.append(number)
            for column, delay_ms in enumerate(DELAYS_MS):
                n = span.stop - span.first
                if delay_ms is not None:
                    n = min(n, frames_within(delay_ms, recordings.front_end))
                stop = max(1, span.first + n)
                first = stop - 1 if by_last or n == 0 else span.first
                temperature = decision.temperature(None if delay_ms is None else n)
                scores[column].append(rows[first:stop, 1:].sum(axis=0) / temperature)
    return ScoresByDelay(
        np.array(scores),
        forecast,
        np.array(units, np.int64),
        np.array(recording_numbers, np.int64),
    )


def choose_weights(segments: ScoresByDelay) -> list[float]:
    """Choose the weight of greatest likelihood at each delay; 0 without segments."""
    if not len(segments.unit):
        return [0.0] * len(DELAYS_MS)
    rows = np.arange(len(segments.unit))
    nats = np.stack(
        [
            -segments.log_posteriors([weight] * len(DELAYS_MS))[:, rows, segments.unit]
            for weight in WEIGHTS
        ]
    )
    return [WEIGHTS[best] for best in nats.mean(axis=-1).argmin(axis=0)]


def early_weights(weights: Sequence[float], front_end: FrontEnd) -> list[PriorSpec]:
    """Convert the weights by delay to weights by number of frames.

    Of several delays with the same number of frames, the longest one is used.
    """
    by_frames = {
        frames_within(delay_ms, front_end): weight
        for delay_ms, weight in zip(DELAYS_MS, weights, strict=True)
        if delay_ms is not None
    }
    return [PriorSpec(frames=n, weight=w) for n, w in sorted(by_frames.items())]
