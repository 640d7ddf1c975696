"""The forecast as a prior for the classifier, and how fast a label is right.

The product of experts of the RNN-RBM's paper (section 7), for a whole segment: with
S_n(k) the log-posteriors of unit k summed over its first n frames, T_n the temperature
that calibrates so many frames and log p(k) the forecast,

    score(k) = S_n(k) / T_n + w_n log p(k)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import ClassifierSpec, FrontEnd, PriorSpec
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.calibration import Float64
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.forecast.network import phrase_inputs, split_phrases
from neurovocal.plugins.models.classifier.decision import Decision

# Where labels are judged: ms of sound after the onset; None is the whole segment.
DELAYS_MS: tuple[float | None, ...] = (0, 5, 10, 20, 30, 50, None)
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
Predict: TypeAlias = Callable[[Float32, Float32], Float32]


@dataclass(frozen=True, slots=True, eq=False)
class ScoresByDelay:
    """What is known of some segments, after each delay.

    Parameters
    ----------
    scores : float64[n_delays, n_segments, n_units]
        Calibrated log-posteriors of the units, silence left out, of the frames that
        were complete by then; where there is none, of the last frame before it.
    forecast : float64[n_segments, n_units]
        Log-probabilities before a frame of it was heard.
    unit : int64[n_segments]
        The right one, counted from 0.
    recording : int64[n_segments]
        Which recording each segment is from.
    """

    scores: Float64
    forecast: Float64
    unit: NDArray[np.int64]
    recording: NDArray[np.int64]

    def log_posteriors(self, weights: Sequence[float]) -> Float64:
        """Of each unit after each delay, float64[n_delays, n_segments, n_units].

        Parameters
        ----------
        weights : sequence of float
            Of the forecast, after each delay.
        """
        scores = self.scores + np.array(weights)[:, None, None] * self.forecast
        scores -= scores.max(axis=-1, keepdims=True)
        logs: Float64 = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        return logs

    def correct(self, weights: Sequence[float]) -> NDArray[np.bool_]:
        """Whether the likeliest unit is right, bool[n_delays, n_segments]."""
        right: NDArray[np.bool_] = self.log_posteriors(weights).argmax(-1) == self.unit
        return right


@dataclass(frozen=True, slots=True, eq=False)
class ClassifiedRecordings:
    """Annotated recordings, as a classifier hears them.

    Parameters
    ----------
    examples : list of LabelledFrames
    log_posteriors : list of float64[n_frames, n_units]
        One array per recording; silence is column 0.
    front_end : FrontEnd
    spec : ClassifierSpec
        The classifier's decision and calibration.
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
    heard: ClassifiedRecordings,
    pause_ms: float,
    *,
    at_onset: bool = True,
) -> Float64:
    """Log-probabilities of each annotated unit, given the true ones before it.

    Parameters
    ----------
    predict : callable
        From a phrase's tokens and gaps (`phrase_inputs`) to log-probabilities.
    n_units : int
        Units, silence left out.
    edges : sequence of float
        Bins of silence, ms.
    heard : ClassifiedRecordings
    pause_ms : float
        Silence after which a phrase begins anew.
    at_onset : bool
        Whether the silence before the unit is known, too.

    Returns
    -------
    float64[n_segments, n_units]
        All recordings', in order.
    """
    rows = [np.zeros((0, n_units))]
    for phrase in split_phrases(heard.examples, heard.frame_ms, pause_ms):
        tokens, gaps = phrase_inputs(phrase, n_units, edges)
        told = gaps if at_onset else np.zeros_like(gaps)
        rows.append(predict(tokens, told).astype(np.float64))
    return np.concatenate(rows)


def frames_within(delay_ms: float, front_end: FrontEnd) -> int:
    """Frames of a segment that are complete so long after its onset, on average.

    A frame is complete half of its length after its centre; the first one is
    centred half a hop after the onset.
    """
    samples = delay_ms * front_end.sample_rate / 1000
    late = samples - (front_end.frame_length + front_end.hop_length) / 2
    return max(0, 1 + int(np.floor(late / front_end.hop_length)))


def collect_scores_by_delay(
    heard: ClassifiedRecordings, forecast: Float64
) -> ScoresByDelay:
    """What each segment's frames say up to every delay, beside its forecast.

    Parameters
    ----------
    heard : ClassifiedRecordings
    forecast : float64[n_segments, n_units]
    """
    scores: list[list[Float64]] = [[] for _ in DELAYS_MS]
    units, recording = [], []
    by_last, decide = heard.spec.decision == "last", Decision(heard.spec)
    for number, (example, rows) in enumerate(
        zip(heard.examples, heard.log_posteriors, strict=True)
    ):
        for span in example.spans:
            units.append(span.unit - 1)
            recording.append(number)
            for at, delay_ms in enumerate(DELAYS_MS):
                n = span.stop - span.first
                if delay_ms is not None:
                    n = min(n, frames_within(delay_ms, heard.front_end))
                stop = max(1, span.first + n)
                first = stop - 1 if by_last or n == 0 else span.first
                warmth = decide.temperature(None if delay_ms is None else n)
                scores[at].append(rows[first:stop, 1:].sum(axis=0) / warmth)
    return ScoresByDelay(
        np.array(scores),
        forecast,
        np.array(units, np.int64),
        np.array(recording, np.int64),
    )


def choose_weights(evidence: ScoresByDelay) -> list[float]:
    """After each delay, the weight that makes the right units most likely."""
    if not len(evidence.unit):
        return [0.0] * len(DELAYS_MS)
    rows = np.arange(len(evidence.unit))
    nats = np.stack(
        [
            -evidence.log_posteriors([weight] * len(DELAYS_MS))[:, rows, evidence.unit]
            for weight in WEIGHTS
        ]
    )
    return [WEIGHTS[best] for best in nats.mean(axis=-1).argmin(axis=0)]


def early_weights(weights: Sequence[float], front_end: FrontEnd) -> list[PriorSpec]:
    """Weights by frames; of delays with the same frames the last one counts."""
    by_frames = {
        frames_within(delay_ms, front_end): weight
        for delay_ms, weight in zip(DELAYS_MS, weights, strict=True)
        if delay_ms is not None
    }
    return [PriorSpec(frames=n, weight=w) for n, w in sorted(by_frames.items())]
