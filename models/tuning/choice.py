"""Choice of the detector of a bundle, and its options, by annotated recordings."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.models.tuning.excess_kind import POOLS, ExcessKind, ExcessParts
from neurovocal.models.tuning.fitting import Searched, best_of, search
from neurovocal.models.tuning.general_kinds import BandsKind, EnergyKind
from neurovocal.models.tuning.heard import Span, Stretch, spans_of
from neurovocal.models.tuning.judging import Found, Judge
from neurovocal.models.tuning.kind import Kind
from neurovocal.models.tuning.search import Values

FITTED = ("energy", "excess", "bands")
"""Detectors that can be fitted."""
# What another detector than the usual one has to be better by, and what a prior noise
# floor may cost, on recordings that no option was fitted to.
_LEAST_GAIN = 0.01
_MOST_LOSS = 0.005


@dataclass(frozen=True, slots=True)
class Annotated:
    """Recordings with the errors of what is found in them.

    Parameters
    ----------
    stretches : sequence of Stretch
        One for each recording, of one sample rate.
    more : callable
        Errors of found segments beside those of `Judge`, such as those of labels.
    """

    stretches: Sequence[Stretch]
    more: Callable[[Found], float] = lambda found: 0.0

    @property
    def judge(self) -> Judge:
        """Judge of what is found in the recordings."""
        return Judge(self.stretches, self.more)


@dataclass(frozen=True, slots=True)
class Choice:
    """Detector that was chosen.

    Parameters
    ----------
    plugin : str
        Its name.
    options : dict
        Options that differ from its defaults.
    errors : dict of str to float
        Errors of each detector that was fitted, on the recordings of the choice.
    """

    plugin: str
    options: dict[str, Any]
    errors: dict[str, float] = field(default_factory=dict)


def fit_best(
    train: Annotated,
    valid: Annotated,
    usual: str,
    start: Values,
    names: Sequence[str] = FITTED,
    on_progress: Callable[[float], None] = lambda share: None,
    check_stop: Callable[[], None] = lambda: None,
    limit_s: float = math.inf,
) -> Choice:
    """Fit detectors to recordings and choose one by others.

    Each is fitted to the training recordings, as `tune` does. The usual one is kept
    unless another has errors that are lower on the recordings of the choice, by 0.01
    and by the standard error of its own.
    The noise floor between the annotated segments of the training recordings becomes
    its prior, unless these have no common floor, or it costs more than 0.005.

    Parameters
    ----------
    train, valid : Annotated
        Recordings for the fit and for the choice. Without a segment in `train` the
        start is returned.
    usual : str
        Name of the usual detector.
    start : dict
        Its options at which the search starts.
    names : sequence of str
        Detectors that are fitted; the usual one always is.
    on_progress : callable
        Receives the share that is done.
    check_stop : callable
        Called before each try; raises an exception to end the search.
    limit_s : float
        Wall-clock seconds after which the best options so far are chosen from.
    """
    if train.judge.n_examples == 0:
        return Choice(usual, start)
    ends_at_s = time.monotonic() + limit_s
    order = [usual, *(name for name in names if name != usual)]
    judge = valid.judge
    fits: dict[str, dict[str, Any]] = {}
    errors: dict[str, float] = {}
    for number, name in enumerate(order):

        def tell(share: float, number: int = number) -> None:
            on_progress((number + share) / len(order))

        left_s = (ends_at_s - time.monotonic()) / (len(order) - number)
        fitted = _fit(
            name, train, start if name == usual else {}, tell, check_stop, left_s
        )
        for options in fitted:
            error = judge.error(found_by(name, options, valid.stretches))
            if name not in errors or error <= errors[name] + _MOST_LOSS:
                fits[name], errors[name] = options, error
    if usual not in errors:
        return Choice(usual, start, errors)
    best = min(errors, key=lambda name: errors[name])
    if errors[best] > errors[usual] - _least_gain(errors[usual], judge.n_examples):
        best = usual
    return Choice(best, fits[best], errors)


def _least_gain(error: float, n_examples: int) -> float:
    """Return by how much another detector must be better than the usual one.

    By a hundredth, and by the standard error of the usual one's errors, if segments
    are independent: few segments choose nothing.
    """
    return max(_LEAST_GAIN, math.sqrt(error / max(n_examples, 1)))


def _fit(
    name: str,
    train: Annotated,
    start: Values,
    on_progress: Callable[[float], None],
    check_stop: Callable[[], None],
    limit_s: float,
) -> list[dict[str, Any]]:
    """Return the fitted options of a detector without and with a prior, if it is one.

    One of a detector that always has a prior.
    """
    kinds: list[Kind]
    if name == "energy":
        kinds = [EnergyKind(train.stretches, start)]
    elif name == "bands":
        kinds = [BandsKind(train.stretches, start)]
    else:
        try:
            parts = ExcessParts(train.stretches)
        except ValueError:  # no recording holds a frame
            return []
        kinds = [ExcessKind(parts, pool, has_buffers=True) for pool in POOLS]
    judge = train.judge
    searched: list[Searched] = []
    for number, kind in enumerate(kinds):

        def tell(share: float, number: int = number) -> None:
            on_progress((number + share) / len(kinds))

        limit = limit_s / len(kinds)
        searched.append(search(kind, judge, tell, check_stop, limit))
    kind, best = best_of(kinds, searched)
    both = [kind.options(best.values), kind.options(kind.with_floor(best.values))]
    found = [options for options in both if options is not None]
    return found[:1] if found[0] == found[-1] else found


def found_by(
    plugin: str, options: dict[str, Any], stretches: Sequence[Stretch]
) -> list[list[Span]]:
    """Return what the detector itself finds in stretches, built as the engine does."""
    if not stretches:
        return []
    registered = Registry().get("detector", plugin)
    info = StreamInfo("training", stretches[0].sample_rate)
    context = BuildContext(clock=SystemClock(), run="training", info=info)
    checked = registered.options.model_validate(options)
    detector = registered.build(checked, context)
    return [spans_of(detector, stretch) for stretch in stretches]
