"""Detectors fitted to annotated stretches: for examples, and for bundles.

`fit` is what `tune` runs, `fit_best` what training runs. Both search with the same
kinds of detectors (`Kind`), the same errors (`Judge`) and the same price of values that
are far from the usual ones.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.models.tuning.excess_kind import ExcessKind, ExcessParts, excess_kinds
from neurovocal.models.tuning.heard import Span, Stretch
from neurovocal.models.tuning.judging import Judge
from neurovocal.models.tuning.kind import Kind
from neurovocal.models.tuning.search import CoordinateSearch, Values

# Costs of values that are further from the usual ones than the examples ask for, in
# units of F1 per factor of two: one example leaves nearly everything at its start. From
# so many examples on they fall.
_STRENGTH, _FEW = 0.02, 20
# Of more examples only the best start is searched from.
_MANY = 200
_ROUNDS = 3
# Ways of pooling are compared in stages. A later one has to be better by this much, as
# what differs between examples and other sound tells more than how loud both are.
_MOST_STAGES, _MUCH_BETTER = 2, 0.2

AnyKind = TypeVar("AnyKind", bound=Kind)


@dataclass(frozen=True, slots=True)
class Fit:
    """Detector that was fitted to examples.

    Parameters
    ----------
    options : dict
        Options of the `excess` detector that differ from its defaults.
    found : list of list of (float, float)
        Segments of each stretch in seconds, where the annotation is complete.
    peaks_db : list of list of float
        Highest score in each example.
    noise_db : float
        Median score of the sound outside of the examples.
    """

    options: dict[str, Any]
    found: list[list[Span]]
    peaks_db: list[list[float]]
    noise_db: float


@dataclass(frozen=True, slots=True)
class Searched:
    """Best values of a kind of detector, with errors and price."""

    values: Values
    cost: float


def search(
    kind: Kind,
    judge: Judge,
    on_progress: Callable[[float], None] = lambda share: None,
    check_stop: Callable[[], None] = lambda: None,
    limit_s: float = math.inf,
) -> Searched:
    """Search the values of least errors and price for a kind of detector.

    Parameters
    ----------
    kind : Kind
        Detector with its starts and candidates.
    judge : Judge
        Of the stretches of `kind`.
    on_progress : callable
        Receives the share that is done at most, before each try.
    check_stop : callable
        Called before each try; raises an exception to end the search.
    limit_s : float
        Wall-clock seconds after which the best values so far are returned.
    """
    strength = _STRENGTH * min(1.0, _FEW / max(judge.n_examples, 1))
    starts = kind.starts
    n_starts = 1 if judge.n_examples > _MANY else len(starts)
    n_tries = len(starts) + n_starts * _ROUNDS * sum(map(len, kind.candidates.values()))
    n_done = 0

    def cost(values: Values) -> float:
        nonlocal n_done
        check_stop()
        n_done += 1
        on_progress(min(1.0, n_done / n_tries))
        if kind.options(values) is None:
            return math.inf
        errors = [judge.error(found) for found in kind.trials(values)]
        error = sum(errors) / len(errors)
        return error + strength * kind.distance(values)

    ends_at_s = time.monotonic() + limit_s
    finder = CoordinateSearch(
        cost, change=kind.change, is_due=lambda: time.monotonic() > ends_at_s
    )
    if n_starts < len(starts):
        starts = [min(starts, key=finder.cost)]
    found = [finder.run(start, kind.candidates, _ROUNDS) for start in starts]
    best = min(found, key=finder.cost)
    return Searched(best, finder.cost(best))


def best_of(
    kinds: Sequence[AnyKind], searched: Sequence[Searched]
) -> tuple[AnyKind, Searched]:
    """Return the kind of least cost, the first of equal ones, with its values."""
    pairs = zip(kinds, searched, strict=True)
    return min(pairs, key=lambda pair: pair[1].cost)


def fit(
    stretches: Sequence[Stretch],
    on_progress: ProgressCallback = lambda share, note: None,
) -> Fit:
    """Fit the `excess` detector to the examples in stretches of one sample rate.

    Parameters
    ----------
    stretches : sequence of Stretch
        With at least one example in all.
    on_progress : callable
        Receives the share that is done.

    Raises
    ------
    ValueError
        The stretches are too short to hold a frame.
    """
    parts = ExcessParts(stretches)
    judge = Judge(stretches)
    chosen: tuple[ExcessKind, Searched] | None = None
    for stage, kinds in enumerate(excess_kinds(parts)):
        searched: list[Searched] = []
        for number, kind in enumerate(kinds):

            def tell(
                share: float,
                done: float = stage + number / len(kinds),
                n: int = len(kinds),
            ) -> None:
                on_progress((done + share / n) / _MOST_STAGES, "")

            searched.append(search(kind, judge, tell))
        found = best_of(kinds, searched)
        if chosen is None or found[1].cost < chosen[1].cost - _MUCH_BETTER:
            chosen = found
        if chosen[1].cost <= _MUCH_BETTER:
            break
    assert chosen is not None
    kind, best = chosen
    options = kind.options(best.values)
    assert options is not None
    segments = judge.judged(kind.segments(best.values))
    return Fit(options, segments, kind.peaks_db, kind.noise_db)


def peaks_of(stretches: Sequence[Stretch]) -> tuple[list[list[float]], float]:
    """Return the highest score in each example, and the median of other sound, in dB.

    Without a search: by the band of the examples and the pooling of powers.

    Parameters
    ----------
    stretches : sequence of Stretch
        As for `fit`, which raises the same error.
    """
    kind = ExcessKind(ExcessParts(stretches), "power")
    return kind.peaks_db, kind.noise_db
