"""Frame-wise classifier: posteriors per frame, a label per segment.

A segment's label is decided by the frames whose centres lie in it, by all of them or
by the last one, as the bundle says; the rule is in `decision`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.stages import ModelItem
from neurovocal.engine.contracts.types import (
    Event,
    Frames,
    Gap,
    Label,
    LabelStatus,
    Offset,
    Onset,
    Posteriors,
)
from neurovocal.plugins.models.classifier.decision import Decision
from neurovocal.plugins.models.classifier.forecast import Forecaster
from neurovocal.plugins.models.classifier.network import FrameNetwork
from neurovocal.plugins.models.history import Float64, PosteriorHistory
from neurovocal.plugins.models.onnx.session import bundle_of, fit_problems

# Posteriors kept beyond the detector's look-ahead.
_MARGIN_S = 1.0


class ClassifierOptions(Options):
    """When labels are given, and when they are refused."""

    provisional: bool = True
    """Label a segment before it has ended, and again when the label changes."""
    provisional_ms: float | None = Field(default=None, ge=0)
    """Delay after the onset of the first provisional label; the bundle's by
    default."""
    thresholds: dict[str, float] = {}
    """Posterior per unit below which the label is `unknown`; goes before the
    bundle's."""
    min_posterior: float = Field(default=0.0, ge=0, le=1)
    """Posterior below which any label is `unknown`."""
    forecast: bool = True
    """Say which unit will come, before its onset, where the bundle has a forecast."""
    prior: Literal["none", "provisional", "all"] = "provisional"
    """Labels that the forecast has a say in: with `all` final ones, too, which are
    then no longer independent of the order in which units usually come."""

    typical: bool = True
    """Answer `unknown` where a segment's duration, or how far its frames agree, is
    unlike that of the unit, as far as the bundle knows."""


@dataclass(slots=True)
class _Segment:
    """A segment that has no final label yet."""

    segment: int
    onset: int
    lo: int
    """First frame whose centre lies in it."""
    ready: int
    """Frame before which all that the first provisional label needs is known."""
    offset: int | None = None
    base: Float64 | None = None
    """Sum of log-posteriors before `lo`, kept from when `lo` was recent."""
    unit: str | None = None
    """What it was last called."""
    forecast: Float64 | None = None
    """Log-probabilities of the units, once the labels before it are final."""


class Classifier:
    """Streaming classifier with explicit state.

    The frames of one call go through the network in one call: the lane hands
    over tiles of the frame grid, which makes results independent of blocks.

    Parameters
    ----------
    options : ClassifierOptions
    context : BuildContext
        Its bundle must have a classifier.

    Attributes
    ----------
    latency : int
        0: a frame's posteriors are known with the frame. A final label waits for
        the last frame whose centre lies in its segment.

    Raises
    ------
    BundleError
        No bundle, none that fits, or one whose golden vectors are not met.
    """

    latency = 0

    def __init__(self, options: ClassifierOptions, context: BuildContext) -> None:
        bundle = bundle_of(context, "classifier")
        spec, front_end = bundle.manifest.classifier, bundle.manifest.front_end
        assert spec is not None
        self._name = f"{bundle.manifest.name}/classifier"
        self._network = FrameNetwork(bundle)
        self._hop, self._length = front_end.hop_length, front_end.frame_length
        self._by_last = spec.decision == "last"
        self._decide = Decision(
            spec, options.thresholds, options.min_posterior, typical=options.typical
        )
        self._forecaster = None
        if bundle.manifest.forecast and (options.forecast or options.prior != "none"):
            self._forecaster = Forecaster(bundle)
        self._tells_forecast = options.forecast
        self._prior = options.prior
        self._provisional = options.provisional
        delay_ms = options.provisional_ms
        delay_ms = spec.provisional_ms if delay_ms is None else delay_ms
        self._delay = round(delay_ms * front_end.sample_rate / 1000)
        margin = round(_MARGIN_S * front_end.sample_rate)
        keep = -(-(context.detector_latency + margin) // self._hop) + context.tile
        self._history = PosteriorHistory(len(spec.units), keep)
        self._open: dict[int, _Segment] = {}
        self._closed: list[_Segment] = []
        self.reset()

    def process(self, item: ModelItem, /) -> Iterable[Event]:
        """Posteriors for frames, labels for segments; a gap resets the state."""
        match item:
            case Frames():
                return self._hear(item)
            case Onset():
                segment = self._begin(item.segment, item.sample)
                self._open[item.segment] = segment
                return [*self._foresee(segment), *self._early(segment)]
            case Offset():
                return self._end(item)
            case Gap():
                late = self.flush()
                self.reset()
                return late

    def flush(self) -> list[Event]:
        """Final labels of segments whose last frames will never come."""
        labels: list[Event] = []
        while self._closed:
            labels += self._finish(self._closed.pop(0))
        return labels

    def reset(self) -> None:
        """Forget state, history and segments."""
        self._network.reset()
        self._history.clear()
        self._open.clear()
        self._closed.clear()
        if self._forecaster:
            self._forecaster.reset()

    def _hear(self, frames: Frames) -> list[Event]:
        self._expect(frames)
        log_posteriors = self._network(frames.values)
        self._history.append(frames.first, log_posteriors)
        posteriors = np.exp(log_posteriors).astype(np.float32)
        events: list[Event] = [
            Posteriors(frames.first, self._hop, self._length, posteriors)
        ]
        for segment in [s for s in self._closed if self._is_complete(s)]:
            self._closed.remove(segment)
            events += self._finish(segment)
        for segment in self._open.values():
            events += self._foresee(segment)
            events += self._early(segment)
        return events

    def _expect(self, frames: Frames) -> None:
        """Refuse frames that do not follow; what comes after them may go on."""
        expected = self._history.stop
        if not self._history.empty and frames.first != expected:
            self.reset()
            raise ValueError(
                f"frames begin at {frames.first}, expected {expected}: missing frames "
                "must be declared as a Gap"
            )

    def _begin(self, segment: int, onset: int) -> _Segment:
        lo = self._frame_centred_from(onset)
        ready = max(lo + 1, self._frame_centred_from(onset + self._delay))
        return _Segment(segment, onset, lo, ready)

    def _frame_centred_from(self, sample: int) -> int:
        """First frame whose centre does not lie before `sample`."""
        return max(0, -((self._length - 2 * sample) // (2 * self._hop)))

    def _early(self, segment: _Segment) -> list[Event]:
        """First label, or a changed one, of a segment that still lasts."""
        history = self._history
        if segment.base is None and history.stop >= segment.lo:
            segment.base = history.before(segment.lo)
        if not self._provisional or history.empty or history.stop < segment.ready:
            return []
        # The first label is due now, however late its onset was announced.
        stop = segment.ready if segment.unit is None else history.stop
        unit, posterior = self._answer(segment, stop, ended=False)
        if unit == segment.unit:
            return []
        status: LabelStatus = "provisional" if segment.unit is None else "revised"
        segment.unit = unit
        return [self._label(segment, unit, posterior, status)]

    def _end(self, mark: Offset) -> list[Event]:
        segment = self._open.pop(mark.segment, None)
        segment = segment or self._begin(mark.segment, mark.onset)
        segment.offset = mark.sample
        if self._is_complete(segment):
            return self._finish(segment)
        self._closed.append(segment)
        return []

    def _is_complete(self, segment: _Segment) -> bool:
        assert segment.offset is not None
        stop = self._frame_centred_from(segment.offset)
        return not self._history.empty and self._history.stop >= stop

    def _finish(self, segment: _Segment) -> list[Event]:
        """Final label, and a forecast of what comes next."""
        assert segment.offset is not None
        stop = self._frame_centred_from(segment.offset)
        foreseen = self._foresee(segment)  # where frames came later than both marks
        unit, posterior = self._answer(segment, stop, ended=True)
        label = self._label(segment, unit, posterior, "final")
        if self._forecaster is None:
            return [label]
        self._forecaster.hear(unit, segment.onset, segment.offset)
        if not self._tells_forecast or self._open or self._closed:
            return [*foreseen, label]
        return [*foreseen, label, self._forecaster.after_offset(segment.segment + 1)]

    def _foresee(self, segment: _Segment) -> list[Event]:
        """What a segment will be, as soon as all labels before it are final."""
        number = segment.segment
        if self._forecaster is None or segment.forecast is not None:
            return []
        if any(other.segment < number for other in self._closed):
            return []
        event, logs = self._forecaster.at_onset(number, segment.onset)
        segment.forecast = logs
        return [event] if self._tells_forecast else []

    def _answer(
        self, segment: _Segment, stop: int, *, ended: bool
    ) -> tuple[str, float]:
        """Unit and posterior from the known frames ``[segment.lo, stop)``."""
        history = self._history
        if history.empty:
            return self._decide.unknown
        stop = min(stop, history.stop)
        prior = self._prior_of(segment, None if ended else stop - segment.lo)
        if stop <= max(segment.lo, history.first):  # holds no frame's centre
            twice_middle = segment.onset + (segment.offset or segment.onset)
            distance = twice_middle - self._length + self._hop
            nearest = history.at(distance // (2 * self._hop))
            return self._decide(nearest, prior, n_frames=1)
        if self._by_last:
            evidence = history.at(stop - 1)
        else:
            base = segment.base
            base = history.before(segment.lo) if base is None else base
            evidence = history.before(stop) - base
        if ended:
            return self._decide(evidence, prior, n_frames=stop - segment.lo)
        return self._decide.early(evidence, stop - segment.lo, prior)

    def _prior_of(self, segment: _Segment, n_frames: int | None) -> Float64 | None:
        """What is added to the scores of the units; None where nothing is."""
        wanted = self._prior == "all" or (
            self._prior != "none" and n_frames is not None
        )
        if not wanted or self._forecaster is None or segment.forecast is None:
            return None
        return self._forecaster.weight(n_frames) * segment.forecast

    def _label(
        self, segment: _Segment, unit: str, posterior: float, status: LabelStatus
    ) -> Label:
        return Label(
            segment.segment,
            segment.onset,
            segment.offset,
            unit,
            posterior,
            status,
            self._name,
        )


def _check(options: ClassifierOptions, context: BuildContext) -> Iterable[str]:
    problems = list(fit_problems(context, "classifier"))
    yield from problems
    spec = context.bundle.manifest.classifier if context.bundle else None
    if spec is not None:
        for unit in sorted(set(options.thresholds) - set(spec.units)):
            known = ", ".join(u for u in spec.units if u != spec.silence)
            yield f"thresholds: the bundle has no unit '{unit}' (it has {known})"


def _build(options: ClassifierOptions, context: BuildContext) -> Classifier:
    problems = list(_check(options, context))
    if problems:
        raise BundleError(problems)
    return Classifier(options, context)


plugin = Plugin(
    kind="model",
    options=ClassifierOptions,
    build=_build,
    summary="labels of segments from a bundle's frame-wise classifier",
    check=_check,
)
