"""Detectors whose options are fitted: what the search knows of every one of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np

from neurovocal.models.tuning.heard import Span
from neurovocal.models.tuning.search import Values

BUFFERS_MS: Mapping[str, Sequence[float]] = {
    "pre_ms": (0.0, 2.0, 5.0, 10.0),
    "post_ms": (0.0, 2.0, 5.0, 10.0, 20.0),
}
"""Buffers before and after a segment that are tried."""


class Kind(Protocol):
    """Detector with options to fit, over stretches of recordings.

    Attributes
    ----------
    plugin : str
        Name of the detector.
    starts : sequence of dict
        Values at which a search may start.
    candidates : mapping of str to sequence
        Values that are tried for each option.
    """

    plugin: str
    starts: Sequence[Values]
    candidates: Mapping[str, Sequence[Any]]

    def change(self, values: Values, name: str, value: Any) -> Values:
        """Return values of which one is changed."""

    def distance(self, values: Values) -> float:
        """Return how far values are from the usual ones, in factors of two."""

    def options(self, values: Values) -> dict[str, Any] | None:
        """Return options that differ from the defaults; None: they are impossible."""

    def with_floor(self, values: Values) -> Values:
        """Return values with the noise floor of the room as a prior, if it is one."""

    def segments(self, values: Values) -> list[list[Span]]:
        """Return what the detector finds in each stretch, in seconds."""

    def trials(self, values: Values) -> list[list[list[Span]]]:
        """Return what is found in each stretch, for each way that values are judged.

        The search lowers the mean of their errors.
        """


def rounded(value: float, digits: int = 3) -> float:
    """Return a number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def octaves(values: Values, usual: Values, names: Sequence[str]) -> float:
    """Return by how many factors of two options differ from the usual ones, in all.

    Durations and levels are raised by 1, as they may be 0; other options that differ
    count as one factor.
    """
    total = 0.0
    for name in names:
        one, other = values.get(name, usual[name]), usual[name]
        if one == other:
            continue
        ratio = 2.0
        if _is_number(one) and _is_number(other):
            ratio = (one + 1) / (other + 1)
        total += abs(float(np.log2(ratio)))
    return total


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
