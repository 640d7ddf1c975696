"""Forecast of the next unit in a stream, by a bundle's forecast network."""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from neurovocal.engine import Bundle, Float32, Forecast, to_samples
from neurovocal.engine.contracts.bundle import ForecastSpec
from neurovocal.engine.contracts.types import ForecastStatus
from neurovocal.plugins.models.history import Float64
from neurovocal.plugins.models.onnx.bound_call import BoundCall
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
    name : str, optional
        In place of the bundle's name in the forecasts.

    Raises
    ------
    BundleError
        The graph does not fit, or does not reproduce its golden vectors.
    """

    def __init__(self, bundle: Bundle, name: str | None = None) -> None:
        manifest = bundle.manifest
        spec, classifier = manifest.forecast, manifest.classifier
        assert spec is not None
        assert classifier is not None
        self._name = f"{name or manifest.name}/forecast"
        self._spec = spec
        self.units = [u for u in classifier.units if u != classifier.silence]
        self._index = {unit: number for number, unit in enumerate(self.units)}
        self._edges = spec.gap_edges_ms
        self._rate = manifest.front_end.sample_rate
        self._pause = to_samples(spec.pause_ms, self._rate)
        n_units, n_gaps = len(self.units), len(self._edges) + 2
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
        # The silences that a forecast can follow: each bin, and one that lasts.
        self._gaps = np.eye(n_gaps + 1, n_gaps, dtype=np.float32)
        self._lasting = n_gaps
        self._call = BoundCall(self._graph, ["log_posteriors", "u_next"])
        # Weights of the forecast by the number of frames from which they are used.
        self._weights_from = [entry.frames for entry in spec.early]
        self._weights = [0.0, *(entry.weight for entry in spec.early)]
        self.reset()

    def reset(self) -> None:
        """Begin a phrase, without units before it."""
        self._offset: int | None = None
        self._follow(None, self._lasting - 1, self._zeros)

    def add_label(self, unit: str, onset: int, offset: int) -> None:
        """Add the final label of a segment; a unit not in the bundle is unknown."""
        if self._is_pause(onset):
            self.reset()
        gap = self._bin_before(onset)
        if not self._known:
            self._run(self._lasting)
        self._follow(self._index.get(unit), gap, self._call.outputs["u_next"])
        self._offset = offset

    def weight(self, n_frames: int | None) -> float:
        """Return the weight of the forecast after `n_frames`; None: after all."""
        if n_frames is None:
            return self._spec.prior_weight
        return self._weights[bisect_right(self._weights_from, n_frames)]

    def next_log_posteriors(self) -> Float32:
        """Return the log-probabilities of the next unit, float32[n_units]."""
        began = self._offset is None  # a phrase begins after a silence of its own
        return self._log_posteriors(self._lasting - 1 if began else self._lasting)

    def after_offset(self, segment: int) -> Forecast:
        """Forecast `segment` at the offset of the segment before it."""
        assert self._offset is not None
        log_posteriors = self._log_posteriors(self._lasting)
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
        log_posteriors = self._log_posteriors(self._bin_before(onset))
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
        # Six digits: more mean nothing, and would make long messages.
        shares = np.exp(log_posteriors).astype(np.float64).round(6).tolist()
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

    def _bin_before(self, onset: int) -> int:
        """Return the bin of the silence before an onset."""
        if self._offset is None:
            return self._lasting - 1
        gap_ms = 1000 * (onset - self._offset) / self._rate
        return bisect_right(self._edges, gap_ms)

    def _follow(self, unit: int | None, gap: int, u: Float32) -> None:
        """Forecast what follows a token; `u` is the state before it.

        Parameters
        ----------
        unit : int or None
            The last unit; None: it is unknown, or there is none.
        gap : int
            Bin of the silence before it.
        u : float32[n_recurrent]
            State.
        """
        inputs, n_units = self._call.inputs, len(self.units)
        inputs["u"][...] = u
        token = inputs["tokens"][0]
        token[...] = 0.0
        if unit is not None:
            token[unit] = 1.0
        token[n_units:] = self._gaps[gap]
        self._known: dict[int, Float32] = {}  # log-posteriors by bin of silence

    def _log_posteriors(self, gap: int) -> Float32:
        """Return the log-posteriors after a bin of silence, float32[n_units]."""
        if gap not in self._known:
            self._run(gap)
        return self._known[gap]

    def _run(self, gap: int) -> None:
        """Compute log-posteriors, and the next state, which no silence changes."""
        call = self._call
        call.inputs["gaps"][...] = self._gaps[gap]
        outputs = call.outputs
        if not call.run():
            for values in outputs.values():
                values[...] = finite(values)
        self._known[gap] = outputs["log_posteriors"][0].copy()
