"""Frame-wise classifier: posteriors per frame, a label per segment.

A segment is labelled by the frames whose centres lie in it: by all of them or by the
last one, as the bundle states (see `decision`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from neurovocal.engine import (
    BuildContext,
    BundleError,
    Event,
    Frames,
    Gap,
    Label,
    ModelItem,
    Offset,
    Onset,
    Options,
    Plugin,
    Posteriors,
)
from neurovocal.engine.contracts.batches import StageBatch
from neurovocal.engine.contracts.bundle import ClassifierSpec
from neurovocal.engine.contracts.types import LabelStatus
from neurovocal.plugins.models.classifier.decision import LabelDecision
from neurovocal.plugins.models.classifier.ends import LabelEnds
from neurovocal.plugins.models.classifier.network import FrameNetwork
from neurovocal.plugins.models.forecast import Forecaster
from neurovocal.plugins.models.history import Float64, PosteriorHistory
from neurovocal.plugins.models.onnx.session import bundle_problems, require_bundle

# Posteriors that are kept in addition to the detector's look-ahead.
_MARGIN_S = 1.0
# Of bundles whose training chose none; found on validation recordings.
_SURE = 0.5


class ClassifierOptions(Options):
    """Options of labels and forecasts."""

    fast: ClassVar[Mapping[str, Any]] = {"sure_posterior": "bundle"}
    name: str | None = Field(
        default=None, min_length=1, max_length=64, pattern=r"^[\w.-]+$"
    )
    """Name of the model in its labels, and before `/forecast` in its forecasts;
    default: `BUNDLE/classifier` and `BUNDLE/forecast`."""
    provisional: bool = True
    """Label a segment before it has ended, and again when the label changes."""
    provisional_ms: float | None = Field(default=None, ge=0, le=60_000)
    """Delay after the onset of the first provisional label; the bundle's by
    default."""
    sure_posterior: Annotated[float, Field(gt=0, le=1)] | Literal["bundle"] | None = (
        None
    )
    """For closed loops: publish a label before the offset as soon as its posterior,
    times the probability that the newest frame is no silence, reaches this, and none
    before; in place of `provisional_ms`. `bundle`: what the training chose for each
    unit, or else 0.5."""
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Posterior per unit below which the label is `unknown`; goes before the
    bundle's."""
    min_posterior: float = Field(default=0.0, ge=0, le=1)
    """Posterior below which any label is `unknown`."""
    forecast: bool = True
    """Forecast the next unit, before its onset, where the bundle has a forecast."""
    prior: Literal["none", "provisional", "all"] = "provisional"
    """Labels that the forecast influences: with `all` also final ones, which then
    depend on the order in which units usually come."""
    typical: bool = True
    """Label a segment `unknown` where its duration, or the agreement of its frames, is
    not typical of the unit, if the bundle has such data."""
    ends: bool = True
    """Give a final label the onset and offset that annotators set for its unit, if the
    bundle has such data; those of the detector's own events stay."""


@dataclass(slots=True)
class _Segment:
    """A segment that has no final label yet."""

    segment: int
    onset: int
    first: int
    """First frame with its centre in the segment."""
    ready: int
    """End of the frames that the first provisional label needs."""
    offset: int | None = None
    is_cut: bool = False
    """Whether something else than silence ended it."""
    base: Float64 | None = None
    """Sum of log-posteriors before `first`, read while `first` was recent."""
    unit: str | None = None
    """Unit of its last label."""
    forecast: Float64 | None = None
    """Log-probabilities of the units, once the labels before it are final."""


class Classifier:
    """Streaming classifier with explicit state.

    The network runs once for the frames of a call: as these are tiles of the frame
    grid, results do not depend on blocks.

    Parameters
    ----------
    options : ClassifierOptions
    context : BuildContext
        Context whose bundle has a classifier.

    Attributes
    ----------
    latency : int
        0: a frame's posteriors are known with the frame. A final label waits for
        the last frame whose centre lies in its segment.

    Raises
    ------
    BundleError
        There is no bundle, it does not fit, or it does not reproduce its golden
        vectors.
    """

    latency = 0

    def __init__(self, options: ClassifierOptions, context: BuildContext) -> None:
        bundle = require_bundle(context, "classifier")
        spec, front_end = bundle.manifest.classifier, bundle.manifest.front_end
        assert spec is not None
        self._name = options.name or f"{bundle.manifest.name}/classifier"
        self._network = FrameNetwork(bundle)
        self._hop, self._length = front_end.hop_length, front_end.frame_length
        self._uses_last_frame = spec.decision == "last"
        self._decision = LabelDecision(
            spec, options.thresholds, options.min_posterior, typical=options.typical
        )
        self._ends = LabelEnds(
            spec if options.ends else spec.model_copy(update={"ends": {}}),
            front_end.sample_rate,
        )
        self._earliest = 0  # sample before which no final label may begin
        self._forecaster = None
        has_prior = options.prior == "all"
        has_prior |= options.prior == "provisional" and options.provisional
        if bundle.manifest.forecast and (options.forecast or has_prior):
            self._forecaster = Forecaster(bundle, options.name)
        self._publishes_forecast = options.forecast
        self._prior = options.prior
        self._provisional = options.provisional
        self._sure = _sure_scores(options.sure_posterior, spec)
        # Early onsets open segments that are no units; the order of units skips them.
        lengths = [typical.shortest for typical in spec.typical.values()]
        self._shortest = min(lengths, default=0) if self._sure is not None else 0
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
        """Return posteriors and labels; a gap resets the state."""
        match item:
            case Frames():
                return self._process_frames(item)
            case Onset():
                segment = self._new_segment(item.segment, item.sample)
                self._open[item.segment] = segment
                return [*self._forecast(segment), *self._provisional_label(segment)]
            case Offset():
                return self._process_offset(item)
            case Gap():
                labels = self.flush()
                self.reset()
                self._earliest = item.stop
                return labels

    def flush(self) -> list[Event]:
        """Return final labels of segments, without the frames that are missing."""
        labels: list[Event] = []
        while self._closed:
            labels += self._finish(self._closed.pop(0))
        return labels

    def reset(self) -> None:
        """Drop state, history and segments."""
        self._network.reset()
        self._history.reset()
        self._open.clear()
        self._closed.clear()
        self._earliest = 0
        if self._forecaster:
            self._forecaster.reset()

    def _process_frames(self, frames: Frames) -> list[Event]:
        expected = self._history.stop
        if frames.first != expected and not self._history.is_empty:
            self.reset()  # frames that come after the hole may go on
            raise ValueError(
                f"frames begin at {frames.first}, expected {expected}: missing frames "
                "must be declared as a Gap"
            )
        logits = self._network(frames.values)
        posteriors = self._history.append_logits(frames.first, logits)
        rows = Posteriors(frames.first, self._hop, self._length, posteriors)
        if self._open or self._closed:
            return [rows, *self.label_segments()]
        return [rows]

    def label_segments(self) -> list[Event]:
        """Return the labels and forecasts that are due with the known frames."""
        events: list[Event] = []
        for segment in tuple(self._closed):
            if self._is_complete(segment):
                self._closed.remove(segment)
                events += self._finish(segment)
        for segment in self._open.values():
            events += self._forecast(segment)
            events += self._provisional_label(segment)
        return events

    def batch(self, stages: Sequence["Classifier"], /) -> StageBatch | None:
        """Return a batch of the classifiers of several channels (`Batches`)."""
        from neurovocal.plugins.models.classifier.channels.batch import ClassifierBatch

        return ClassifierBatch.of(stages)

    def _new_segment(self, segment: int, onset: int) -> _Segment:
        first = self._frame_centred_from(onset)
        ready = max(first + 1, self._frame_centred_from(onset + self._delay))
        return _Segment(segment, onset, first, ready)

    def _frame_centred_from(self, sample: int) -> int:
        """Return the first frame centred at or after `sample`."""
        return max(0, -((self._length - 2 * sample) // (2 * self._hop)))

    def _provisional_label(self, segment: _Segment) -> list[Event]:
        """Return the first label, or a changed one, of a segment that has not ended."""
        history = self._history
        if segment.base is None and history.stop >= segment.first:
            segment.base = history.sum_before(segment.first)
        if not self._provisional or history.is_empty:
            return []
        ready = segment.ready if self._sure is None else segment.first + 1
        if history.stop < ready:
            return []
        # The first label uses the same frames however late its onset was reported.
        is_first = segment.unit is None and self._sure is None
        stop = ready if is_first else history.stop
        unit, posterior = self._decide_unit(segment, stop, ended=False)
        if unit == segment.unit or not self._is_sure(unit, posterior):
            return []
        status: LabelStatus = "provisional" if segment.unit is None else "revised"
        segment.unit = unit
        return [self._label(segment, unit, posterior, status)]

    def _is_sure(self, unit: str, posterior: float) -> bool:
        """Return whether a label may be published before its segment has ended.

        The posterior compares the units alone; the newest frame says whether it is
        any of them.
        """
        if self._sure is None:
            return True
        if unit == self._decision.unknown[0]:
            return False
        newest = self._history.nearest(self._history.stop - 1)
        voiced = 1.0 - math.exp(newest[self._decision.silence])
        return posterior * voiced >= self._sure[unit]

    def _process_offset(self, mark: Offset) -> list[Event]:
        segment = self._open.pop(mark.segment, None)
        segment = segment or self._new_segment(mark.segment, mark.onset)
        segment.offset, segment.is_cut = mark.sample, mark.truncated
        if self._is_complete(segment):
            return self._finish(segment)
        self._closed.append(segment)
        return []

    def _is_complete(self, segment: _Segment) -> bool:
        assert segment.offset is not None
        latest = segment.offset + (0 if segment.is_cut else self._ends.longest)
        stop = self._frame_centred_from(latest)
        return not self._history.is_empty and self._history.stop >= stop

    def _finish(self, segment: _Segment) -> list[Event]:
        """Return the final label, and a forecast of the next segment."""
        assert segment.offset is not None
        stop = self._frame_centred_from(segment.offset)
        forecast = self._forecast(segment)  # where frames arrive after both marks
        unit, posterior = self._decide_unit(segment, stop, ended=True)
        label = self._final_label(segment, unit, posterior)
        if self._forecaster is None:
            return [label]
        is_unknown = unit == self._decision.unknown[0]
        if is_unknown and stop - segment.first < self._shortest:
            return [*forecast, label]  # an onset that was withdrawn
        self._forecaster.add_label(unit, segment.onset, segment.offset)
        if not self._publishes_forecast or self._open or self._closed:
            return [*forecast, label]
        return [*forecast, label, self._forecaster.after_offset(segment.segment + 1)]

    def _forecast(self, segment: _Segment) -> list[Event]:
        """Forecast a segment once all labels before it are final."""
        number = segment.segment
        if self._forecaster is None or segment.forecast is not None:
            return []
        for other in self._closed:
            if other.segment < number:
                return []
        event, logs = self._forecaster.at_onset(number, segment.onset)
        segment.forecast = logs
        return [event] if self._publishes_forecast else []

    def _decide_unit(
        self, segment: _Segment, stop: int, *, ended: bool
    ) -> tuple[str, float]:
        """Decide unit and posterior by the known frames ``[segment.first, stop)``."""
        history = self._history
        if history.is_empty:
            return self._decision.unknown
        stop = min(stop, history.stop)
        prior = self._prior_of(segment, None if ended else stop - segment.first)
        if stop <= max(segment.first, history.first):  # no frame's centre lies in it
            twice_middle = segment.onset + (segment.offset or segment.onset)
            distance = twice_middle - self._length + self._hop
            nearest = history.nearest(distance // (2 * self._hop))
            return self._decision(nearest, prior, n_frames=1)
        if self._uses_last_frame:
            log_posteriors = history.nearest(stop - 1)
        else:
            base = segment.base
            base = history.sum_before(segment.first) if base is None else base
            log_posteriors = history.sum_before(stop) - base
        if ended:
            return self._decision(log_posteriors, prior, n_frames=stop - segment.first)
        return self._decision.early(log_posteriors, stop - segment.first, prior)

    def _prior_of(self, segment: _Segment, n_frames: int | None) -> Float64 | None:
        """Return the log-prior to add to the scores of the units, if any."""
        wanted = self._prior == "all" or (
            self._prior != "none" and n_frames is not None
        )
        if not wanted or self._forecaster is None or segment.forecast is None:
            return None
        return self._forecaster.weight(n_frames) * segment.forecast

    def _final_label(self, segment: _Segment, unit: str, posterior: float) -> Label:
        """Return the final label, with the ends of its unit."""
        assert segment.offset is not None
        latest = segment.offset
        if not segment.is_cut:
            # What has arrived at any rate, whatever the blocks are.
            needed = self._frame_centred_from(segment.offset + self._ends.longest)
            last = min(needed, self._history.stop) - 1
            latest = max(latest, last * self._hop + self._length)
        onset, offset = self._ends(
            unit, segment.onset, segment.offset, self._earliest, latest
        )
        self._earliest = offset
        number = segment.segment
        return Label(number, onset, offset, unit, posterior, "final", self._name)

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


def _sure_scores(
    given: float | Literal["bundle"] | None, spec: ClassifierSpec
) -> dict[str, float] | None:
    """Return the score that names each unit before its offset; None without any."""
    if given is None:
        return None
    if given != "bundle":
        return dict.fromkeys(spec.units, given)
    return dict.fromkeys(spec.units, _SURE) | spec.sure


def _check(options: ClassifierOptions, context: BuildContext) -> Iterable[str]:
    problems = list(bundle_problems(context, "classifier"))
    yield from problems
    spec = context.bundle.manifest.classifier if context.bundle else None
    if spec is not None:
        for unit in sorted(set(options.thresholds) - set(spec.units)):
            known = ", ".join(u for u in spec.units if u != spec.silence)
            yield f"thresholds: the bundle has no unit '{unit}' (it has {known})"


def _label_name(options: ClassifierOptions, context: BuildContext) -> str | None:
    if options.name is not None or context.bundle is None:
        return options.name
    return f"{context.bundle.manifest.name}/classifier"


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
    label_name=_label_name,
)
