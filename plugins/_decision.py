"""What a segment is called, from the posteriors of its frames.

With p_t the posteriors of frame t, a unit u scores ``sum_t log p_t(u)`` over the
segment's frames (decision `vote`) or ``log p_t(u)`` of its last frame (`last`, for
networks that were trained on last-step output); the label's posterior is the softmax
over all units but silence of these scores, divided by the bundle's temperature. The
sum takes frames as independent, which they are not: the temperature, fitted on
validation data, makes up for it (Guo et al., 2017, On Calibration of Modern Neural
Networks, section 4.2). A label whose posterior is below its unit's threshold is
`unknown`.
"""

from collections.abc import Mapping

import numpy as np

from neurovocal.engine.manifest import ClassifierSpec
from neurovocal.plugins._posterior_history import Float64


class Decision:
    """From summed log-posteriors to a unit and its posterior.

    Parameters
    ----------
    spec : ClassifierSpec
        Units, temperature and thresholds.
    thresholds : mapping of str to float
        Thresholds that go before the bundle's.
    min_posterior : float
        Smallest threshold of every unit.
    """

    def __init__(
        self,
        spec: ClassifierSpec,
        thresholds: Mapping[str, float] | None = None,
        min_posterior: float = 0.0,
    ) -> None:
        self._voiced = [i for i, unit in enumerate(spec.units) if unit != spec.silence]
        self._units = [spec.units[i] for i in self._voiced]
        self._temperature = spec.temperature
        self._unknown = spec.unknown
        wanted = {**spec.thresholds, **(thresholds or {})}
        self._thresholds = [
            max(wanted.get(unit, 0.0), min_posterior) for unit in self._units
        ]

    @property
    def unknown(self) -> tuple[str, float]:
        """Answer where no frame is known."""
        return self._unknown, 0.0

    def __call__(self, log_posteriors: Float64) -> tuple[str, float]:
        """Unit and posterior for float64[n_units], of the frames that decide."""
        scores = log_posteriors[self._voiced] / self._temperature
        weights = np.exp(scores - scores.max())
        best = int(weights.argmax())
        posterior = float(weights[best] / weights.sum())
        if posterior < self._thresholds[best]:
            return self._unknown, posterior
        return self._units[best], posterior
