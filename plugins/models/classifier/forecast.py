"""Forecast of the next unit in a stream, by a bundle's forecast network."""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from neurovocal.engine import Bundle, Float32, Forecast, to_samples
from neurovocal.engine.contracts.bundle import ForecastSpec
from neurovocal.engine.contracts.types import ForecastStatus
from neurovocal.plugins.models.history import Float64
from neurovocal.plugins.models.onnx.session import Golden, Graph, finite


def encode_gap(gap_ms: float, edges: Sequence[float]) -> Float32:
    """Encode the silence before a unit as one-hot float32[n_edges + 2].

    The last element is set at the beginning of a phrase (`gap_ms` is infinite).
    """
    row = np.zeros(len(edges) + 2, np.float32)
    row[bisect_right(edges, gap_ms) if math.isfinite(gap_ms) else -1] = 1.0
    return row


def encode_token(unit: int | None, gap: Float32, n_units: int) -> Float32:
    """Join a one-hot unit (None: unknown) and the silence before it in one row."""
    row = np.zeros(n_units + len(gap), np.float32)
    if unit is not None:
        row[unit] = 1.0
    row[n_units:] = gap
    return row


def forecast_weight(spec: ForecastSpec, n_frames: int | None) -> float:
    """Return the weight of the forecast after `n_frames`; None: after all frames."""
    if n_frames is None:
        return spec.prior_weight
    weight = 0.0
    for entry in spec.early:  # in the order of their frames
        if entry.frames > n_frames:
            break
        weight = entry.weight
    return weight


class Forecaster:
    """Forecasts the next unit from the final labels of a stream.

    Parameters
    ----------
    bundle : Bundle
        Bundle with a forecast.

    Raises
    ------
    BundleError
        The graph does not fit, or does not reproduce its golden vectors.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        spec, classifier = manifest.forecast, manifest.classifier
        assert spec is not None
        assert classifier is not None
        self._name = f"{manifest.name}/forecast"
        self._spec = spec
        self.units = [u for u in classifier.units if u != classifier.silence]
        self._index = {unit: number for number, unit in enumerate(self.units)}
        self._edges = spec.gap_edges_ms
        self._rate = manifest.front_end.sample_rate
        self._pause = to_samples(spec.pause_ms, self._rate)
        n_units, n_gaps = len(self.units), len(self._edges) + 2
        self._no_gap = np.zeros((1, n_gaps), np.float32)
        self._graph = Graph(
            bundle,
            spec.file,
            {
                "tokens": (None, n_units + n_gaps),
                "gaps": (None, n_gaps),
                "u": (spec.n_recurrent,),
            },
            {"log_posteriors": (None, n_units), "u_next": (spec.n_recurrent,)},
        )
        self._zeros = np.zeros(spec.n_recurrent, np.float32)
        golden = Golden(bundle)
        feed = {
            "tokens": golden["forecast_tokens"],
            "gaps": golden["forecast_gaps"],
            "u": self._zeros,
        }
        golden.check(self._graph, "forecast", self._graph.try_run(feed)[0])
        self.reset()

    def reset(self) -> None:
        """Begin a phrase, without units before it."""
        self._u = self._zeros
        self._offset: int | None = None
        # The last token before the forecast; the state is that before the token.
        first = encode_gap(np.inf, self._edges)
        self._token = encode_token(None, first, len(self.units))
        self._gap = first

    def add_label(self, unit: str, onset: int, offset: int) -> None:
        """Add the final label of a segment; a unit not in the bundle is unknown."""
        if self._is_pause(onset):
            self.reset()
        gap = self._gap_before(onset)
        self._u = finite(self._run(self._no_gap)[1])
        self._token = encode_token(self._index.get(unit), gap, len(self.units))
        self._offset = offset

    def weight(self, n_frames: int | None) -> float:
        """Return the weight of the forecast after `n_frames`; None: after all."""
        return forecast_weight(self._spec, n_frames)

    def after_offset(self, segment: int) -> Forecast:
        """Forecast `segment` at the offset of the segment before it."""
        assert self._offset is not None
        log_posteriors = finite(self._run(self._no_gap)[0])[0]
        return self._event(segment, self._offset, log_posteriors, "offset")

    def at_onset(self, segment: int, onset: int) -> tuple[Forecast, Float64]:
        """Forecast `segment` at its onset, given the silence before it.

        Returns
        -------
        forecast : Forecast
            The event.
        log_posteriors : float64[n_units]
            Log-probabilities of the units.
        """
        if self._is_pause(onset):
            self.reset()
        gap = self._gap_before(onset)[None]
        log_posteriors = finite(self._run(gap)[0])[0]
        return (
            self._event(segment, onset, log_posteriors, "onset"),
            log_posteriors.astype(np.float64),
        )

    def _event(
        self,
        segment: int,
        sample: int,
        log_posteriors: Float32,
        status: ForecastStatus,
    ) -> Forecast:
        shares = [round(float(p), 6) for p in np.exp(log_posteriors)]
        best = int(log_posteriors.argmax())
        return Forecast(
            segment,
            sample,
            self.units[best],
            shares[best],
            dict(zip(self.units, shares, strict=True)),
            status,
            self._name,
        )

    def _is_pause(self, onset: int) -> bool:
        return self._offset is not None and onset - self._offset > self._pause

    def _gap_before(self, onset: int) -> Float32:
        if self._offset is None:
            return encode_gap(np.inf, self._edges)
        return encode_gap(1000 * (onset - self._offset) / self._rate, self._edges)

    def _run(self, gap: Float32) -> list[Float32]:
        """Return log-posteriors float32[1, n_units] and the next state."""
        feed = {"tokens": self._token[None], "gaps": gap, "u": self._u}
        return self._graph.run(feed)
