"""Latency percentiles of the published events, in constant memory."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Ledger

_LOWEST_MS = 1e-3
_PER_DECADE = 40
_N_BUCKETS = 9 * _PER_DECADE
MOST_PENDING = 1024


class Percentiles:
    """Percentiles of durations in constant memory.

    Durations fall into buckets spaced by 1/40 decade (6 %) from 1 us to 1000 s,
    so a percentile is exact within 6 % however many values were added.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_N_BUCKETS, np.int64)
        self.count = 0
        self.largest_ms = 0.0

    def add(self, value_ms: float) -> None:
        """Count one duration in ms."""
        self.add_all(np.array([value_ms]))

    def add_all(self, values_ms: NDArray[np.float64]) -> None:
        """Count durations in ms, float64[n] with n of at least 1."""
        decades = np.log10(np.maximum(values_ms, _LOWEST_MS) / _LOWEST_MS)
        places = np.minimum((decades * _PER_DECADE).astype(np.intp), _N_BUCKETS - 1)
        self._counts += np.bincount(places, minlength=_N_BUCKETS)
        self.count += len(values_ms)
        self.largest_ms = max(self.largest_ms, float(values_ms.max()))

    def percentile(self, percent: float) -> float:
        """Return the upper edge in ms of the percentile's bucket; 0.0 if empty."""
        return self._edges(percent)[0]

    def summary(self) -> dict[str, float]:
        """Return p50, p95, p99 and the largest duration, in ms."""
        edges = [round(edge, 3) for edge in self._edges(50, 95, 99)]
        shares = dict(zip(("p50", "p95", "p99"), edges, strict=True))
        return {**shares, "max": round(self.largest_ms, 3)}

    def _edges(self, *percents: float) -> list[float]:
        if not self.count:
            return [0.0] * len(percents)
        seen = np.cumsum(self._counts)
        # At least one value: the bucket of the smallest one is that of 0 %.
        wanted = [max(1.0, self.count * percent / 100.0) for percent in percents]
        places = np.searchsorted(seen, wanted)
        edges = [_LOWEST_MS * 10 ** ((int(p) + 1) / _PER_DECADE) for p in places]
        return [min(edge, self.largest_ms) for edge in edges]


@dataclass(slots=True)
class LedgerMetrics:
    """Percentiles of the latency ledger of one kind of event.

    Ledgers are collected in `pending` and counted when percentiles are asked for, or
    when there are many of them: all together, as the lane waits for it.
    """

    wait: Percentiles = field(default_factory=Percentiles)
    queue: Percentiles = field(default_factory=Percentiles)
    compute: Percentiles = field(default_factory=Percentiles)
    pending: list[Ledger] = field(default_factory=list)

    def count(self) -> None:
        """Count the pending ledgers."""
        if not self.pending:
            return
        rows = [(each.wait_ms, each.queue_ms, each.compute_ms) for each in self.pending]
        columns = np.array(rows, np.float64).T
        for part, values in zip(
            (self.wait, self.queue, self.compute), columns, strict=True
        ):
            part.add_all(values)
        self.pending.clear()

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the percentiles of each part in ms."""
        self.count()
        return {
            "wait_ms": self.wait.summary(),
            "queue_ms": self.queue.summary(),
            "compute_ms": self.compute.summary(),
        }
