"""Decision on a segment's unit from the posteriors of its frames.

With p_t the posteriors of frame t, a unit u scores ``sum_t log p_t(u)`` over the
segment's frames (decision `vote`) or ``log p_t(u)`` of its last frame (`last`, for
networks that were trained on last-step output); the label's posterior is the softmax
over all units but silence of these scores, divided by the bundle's temperature. The
sum treats frames as independent, which they are not: the temperature, fitted on
validation data, corrects for it (Guo et al., 2017, On Calibration of Modern Neural
Networks, section 4.2). A label whose posterior is below its unit's threshold is
`unknown`, and so is a segment whose frames vote for silence, such as that of a noise.

A posterior compares units with each other, and one of them always fits best.
Therefore a final label is also `unknown` where the segment is much shorter or longer
than those of the unit, or its frames agree much less (mean log-posterior).

Before a segment has ended, its label uses the calibration for its number of frames,
and silence has no vote: at an onset the network still assigns it.

A prior, the weighted log-probabilities of the units given the segments before, is
added to the calibrated scores (product of experts).
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import ClassifierSpec
from neurovocal.engine.support.compiled import Kernel
from neurovocal.plugins.models.history import Float64

_MOST_UNITS = 128  # of the compiled sums
_NO_PRIOR = np.empty(0)


@dataclass(frozen=True, slots=True)
class _Rule:
    temperature: float
    thresholds: list[float]


class LabelDecision:
    """Decides on a unit and its posterior from summed log-posteriors.

    Parameters
    ----------
    spec : ClassifierSpec
        Units, temperatures and thresholds.
    thresholds : mapping of str to float
        Thresholds that override the bundle's.
    min_posterior : float
        Smallest threshold of every unit.
    typical : bool
        Whether duration and agreement must be typical of the unit.

    Attributes
    ----------
    voiced : list of int
        Columns of the units, without silence.
    silence : int
        Column of silence.
    """

    def __init__(
        self,
        spec: ClassifierSpec,
        thresholds: Mapping[str, float] | None = None,
        min_posterior: float = 0.0,
        *,
        typical: bool = True,
    ) -> None:
        self._silence = self.silence = spec.units.index(spec.silence)
        # The last frame of a segment may be silent, so silence has no vote there.
        self._sums = self._silence_votes = spec.decision == "vote"
        self.voiced = [i for i, unit in enumerate(spec.units) if unit != spec.silence]
        self._units = [spec.units[i] for i in self.voiced]
        self._columns = np.array(self.voiced, np.int64)
        self._column = {unit: i for i, unit in enumerate(spec.units)}
        self._unknown = spec.unknown
        self._typical = spec.typical if typical else {}

        def rule(temperature: float, own: Mapping[str, float]) -> _Rule:
            wanted = {**own, **(thresholds or {})}
            return _Rule(
                temperature,
                [max(wanted.get(unit, 0.0), min_posterior) for unit in self._units],
            )

        self._final = rule(spec.temperature, spec.thresholds)
        self._early = [rule(e.temperature, e.thresholds) for e in spec.early]
        self._early_from = [entry.frames for entry in spec.early]

    def index_of(self, unit: str | None) -> int:
        """Return the place of a unit among the voiced ones, -1 for any other."""
        return self._units.index(unit) if unit in self._units else -1

    @property
    def unknown(self) -> tuple[str, float]:
        """Unit and posterior where no frame is known."""
        return self._unknown, 0.0

    def __call__(
        self,
        log_posteriors: Float64,
        prior: Float64 | None = None,
        n_frames: int | None = None,
    ) -> tuple[str, float]:
        """Return unit and posterior of a segment that has ended.

        Parameters
        ----------
        log_posteriors : float64[n_units]
            Log-posteriors of the deciding frames, summed.
        prior : float64[n_voiced], optional
            Log-prior to add to the scores of the units.
        n_frames : int, optional
            Frames of the segment; None: it is not compared with typical ones.
        """
        unit, posterior = self._decide(log_posteriors, self._final, prior)
        if self._silence_votes:
            voiced = np.maximum.reduce(log_posteriors[self._columns])
            if log_posteriors[self._silence] > voiced:
                return self._unknown, posterior
        typical = self._typical.get(unit)
        if typical is not None and n_frames is not None:
            score = log_posteriors[self._column[unit]]
            mean = score / n_frames if self._sums else score
            fits = typical.shortest <= n_frames <= typical.longest
            if not fits or mean < typical.agreement:
                return self._unknown, posterior
        return unit, posterior

    def early(
        self, log_posteriors: Float64, n_frames: int, prior: Float64 | None = None
    ) -> tuple[str, float]:
        """Return unit and posterior after the first `n_frames` of a segment."""
        return self._decide(log_posteriors, self._rule(n_frames), prior)

    def early_units(
        self, sums: Float64, n_frames: Sequence[int], priors: Float64 | None
    ) -> NDArray[np.intp]:
        """Return what `early` decides for several segments, as by `index_of`.

        Parameters
        ----------
        sums : float64[n_segments, n_units]
            Summed log-posteriors of each segment's first frames.
        n_frames : sequence of int
            How many these are.
        priors : float64[n_segments, n_voiced], optional
            Log-priors.
        """
        rules = [self._rule(n) for n in n_frames]
        temperatures = np.array([rule.temperature for rule in rules])
        thresholds = np.array([rule.thresholds for rule in rules])
        scores = sums[:, self._columns] / temperatures[:, None]
        if priors is not None:
            scores = scores + priors
        weights = np.exp(scores - np.maximum.reduce(scores, axis=1, keepdims=True))
        best = weights.argmax(axis=1)
        each = np.arange(len(best))
        posteriors = weights[each, best] / np.add.reduce(weights, axis=1)
        return np.where(posteriors < thresholds[each, best], -1, best)

    def temperature(self, n_frames: int | None) -> float:
        """Return the temperature for the first `n_frames`; None: for all frames."""
        return (self._final if n_frames is None else self._rule(n_frames)).temperature

    def _rule(self, n_frames: int) -> _Rule:
        entry = max(bisect_right(self._early_from, n_frames) - 1, 0)
        return self._early[entry] if self._early else self._final

    def _decide(
        self, log_posteriors: Float64, rule: _Rule, prior: Float64 | None
    ) -> tuple[str, float]:
        if _MOST_PROBABLE.call and len(self._columns) <= _MOST_UNITS:
            added = _NO_PRIOR if prior is None else prior
            best, posterior = _MOST_PROBABLE.call(
                log_posteriors, self._columns, rule.temperature, added
            )
        else:
            best, posterior = _most_probable(
                log_posteriors, self._columns, rule.temperature, prior
            )
        if posterior < rule.thresholds[best]:
            return self._unknown, posterior
        return self._units[best], posterior


def _most_probable(
    log_posteriors: Float64,
    columns: NDArray[np.int64],
    temperature: float,
    prior: Float64 | None,
) -> tuple[int, float]:
    """Return the place of the most probable unit among `columns`, and its posterior."""
    scores = log_posteriors[columns]
    scores /= temperature
    if prior is not None:
        scores += prior
    best = int(scores.argmax())
    scores -= scores[best]
    np.exp(scores, out=scores)
    return best, 1.0 / float(np.add.reduce(scores))


def _is_equal(kernel: Callable[..., Any]) -> bool:
    """Return whether the compiled kernel gives the bits of NumPy for noise."""
    rng = np.random.default_rng(0)
    for n_units in (2, 7, 9, 30):
        columns = np.arange(1, n_units)
        for _ in range(50):
            logs = 20 * rng.standard_normal(n_units)
            prior = rng.standard_normal(n_units - 1)
            for each in (None, prior):
                added = _NO_PRIOR if each is None else each
                expected = _most_probable(logs, columns, 3.7, each)
                if kernel(logs, columns, 3.7, added) != expected:
                    return False
    return True


# Where NumPy computes exponentials in vectors (AVX-512), the bits may differ.
_MOST_PROBABLE = Kernel(
    "neurovocal.plugins.models.classifier.kernels", "most_probable", _is_equal
)
