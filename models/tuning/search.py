"""Coordinate search: better values for one option after the other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Values: TypeAlias = dict[str, Any]


class CoordinateSearch:
    """Search for the options of least cost, one option after the other.

    An option keeps its value unless another one lowers the cost by `improvement`.
    Costs are remembered: options are measured once. The search is deterministic.

    Parameters
    ----------
    cost : callable
        Cost of options, a dict; infinite if they are impossible.
    change : callable
        ``change(options, name, value)`` returns options of which one is changed; by
        default a copy with this entry.
    improvement : float
        Least decrease of the cost for which an option is changed.
    is_due : callable
        Called between two options; True ends the search with the best so far.
    """

    def __init__(
        self,
        cost: Callable[[Values], float],
        *,
        change: Callable[[Values, str, Any], Values] | None = None,
        improvement: float = 1e-9,
        is_due: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cost = cost
        self._change = change or (lambda options, name, value: {**options, name: value})
        self._improvement = improvement
        self._is_due = is_due
        self._costs: dict[tuple[tuple[str, Any], ...], float] = {}

    @property
    def n_tried(self) -> int:
        """Number of options whose cost was measured."""
        return len(self._costs)

    def cost(self, options: Values) -> float:
        """Return the cost of options, measured once."""
        key = tuple(sorted(options.items()))
        if key not in self._costs:
            self._costs[key] = self._cost(options)
        return self._costs[key]

    def run(
        self, start: Values, candidates: Mapping[str, Sequence[Any]], rounds: int
    ) -> Values:
        """Return the best options found from `start`.

        Parameters
        ----------
        start : dict
            Options to begin with.
        candidates : mapping of str to sequence
            Values that are tried for each option, in this order.
        rounds : int
            How often each option is tried at most; a round without a change is the
            last.
        """
        options = start
        for _ in range(rounds):
            before = options
            for name, values in candidates.items():
                if self._is_due():
                    return options
                options = self._improve(options, name, values)
            if options == before:
                break
        return options

    def _improve(self, options: Values, name: str, values: Sequence[Any]) -> Values:
        """Try the values of one option and keep the best one if it is worth it."""
        changed = [self._change(options, name, value) for value in values]
        best = min(changed, key=self.cost)
        improved = self.cost(best) < self.cost(options) - self._improvement
        return best if improved else options
