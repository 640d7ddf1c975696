"""What a segment is called, from the posteriors of its frames.

With p_t the posteriors of frame t, a unit u scores ``sum_t log p_t(u)`` over the
segment's frames (decision `vote`) or ``log p_t(u)`` of its last frame (`last`, for
networks that were trained on last-step output); the label's posterior is the softmax
over all units but silence of these scores, divided by the bundle's temperature. The
sum takes frames as independent, which they are not: the temperature, fitted on
validation data, makes up for it (Guo et al., 2017, On Calibration of Modern Neural
Networks, section 4.2). A label whose posterior is below its unit's threshold is
`unknown`. So is a segment whose frames vote for silence: detectors hear doors, too.

A posterior compares units with each other, and one of them always fits best. So a
final label is `unknown`, too, where the segment is much shorter or longer than the
unit's are, or its frames agree much less on the unit (mean log-posterior).

Before a segment has ended its few frames have a calibration of their own, by how
many they are, and silence has no vote: at an onset the network still says it.

A prior, the weighted log-probabilities of the units before a frame of the segment was
heard, is added to the calibrated scores: the product of both experts.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neurovocal.engine.contracts.bundle import ClassifierSpec
from neurovocal.plugins.models.history import Float64


@dataclass(frozen=True, slots=True)
class _Rule:
    temperature: float
    thresholds: list[float]


class Decision:
    """From summed log-posteriors to a unit and its posterior.

    Parameters
    ----------
    spec : ClassifierSpec
        Units, temperatures and thresholds.
    thresholds : mapping of str to float
        Thresholds that go before the bundle's.
    min_posterior : float
        Smallest threshold of every unit.
    typical : bool
        Whether segments must be like the unit's.
    """

    def __init__(
        self,
        spec: ClassifierSpec,
        thresholds: Mapping[str, float] | None = None,
        min_posterior: float = 0.0,
        *,
        typical: bool = True,
    ) -> None:
        self._silence = spec.units.index(spec.silence)
        # The last frame of a segment may well be silent: there it says nothing.
        self._sums = self._silence_votes = spec.decision == "vote"
        self._voiced = [i for i, unit in enumerate(spec.units) if unit != spec.silence]
        self._units = [spec.units[i] for i in self._voiced]
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

    @property
    def unknown(self) -> tuple[str, float]:
        """Answer where no frame is known."""
        return self._unknown, 0.0

    def __call__(
        self,
        log_posteriors: Float64,
        prior: Float64 | None = None,
        n_frames: int | None = None,
    ) -> tuple[str, float]:
        """Final unit and posterior of a segment.

        Parameters
        ----------
        log_posteriors : float64[n_units]
            Of the frames that decide, summed.
        prior : float64[n_voiced], optional
            Added to the scores of the units.
        n_frames : int, optional
            Frames of the segment; without them nothing is asked of its likeness.
        """
        unit, posterior = self._answer(log_posteriors, self._final, prior)
        silent = log_posteriors[self._silence] > log_posteriors[self._voiced].max()
        if silent and self._silence_votes:
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
        """Same after the first `n_frames` of a segment that still lasts."""
        return self._answer(log_posteriors, self._rule(n_frames), prior)

    def temperature(self, n_frames: int | None) -> float:
        """That of the first `n_frames` of a segment; None: of all of them."""
        return (self._final if n_frames is None else self._rule(n_frames)).temperature

    def _rule(self, n_frames: int) -> _Rule:
        entry = max(bisect_right(self._early_from, n_frames) - 1, 0)
        return self._early[entry] if self._early else self._final

    def _answer(
        self, log_posteriors: Float64, rule: _Rule, prior: Float64 | None
    ) -> tuple[str, float]:
        scores = log_posteriors[self._voiced] / rule.temperature
        if prior is not None:
            scores = scores + prior
        weights = np.exp(scores - scores.max())
        best = int(weights.argmax())
        posterior = float(weights[best] / weights.sum())
        if posterior < rule.thresholds[best]:
            return self._unknown, posterior
        return self._units[best], posterior
