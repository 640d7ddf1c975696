"""Latency percentiles of the published events, in constant memory."""

import math
from dataclasses import dataclass, field

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
        self._counts = [0] * _N_BUCKETS
        self.count = 0
        self.largest_ms = 0.0

    def add(self, value_ms: float) -> None:
        """Count one duration in ms."""
        place = 0
        if value_ms > _LOWEST_MS:
            place = int(math.log10(value_ms / _LOWEST_MS) * _PER_DECADE)
        self._counts[min(place, _N_BUCKETS - 1)] += 1
        self.count += 1
        self.largest_ms = max(self.largest_ms, value_ms)

    def percentile(self, percent: float) -> float:
        """Return the upper edge in ms of the percentile's bucket; 0.0 if empty."""
        wanted = self.count * percent / 100.0
        seen = 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                edge = _LOWEST_MS * 10 ** ((place + 1) / _PER_DECADE)
                return min(edge, self.largest_ms)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Return p50, p95, p99 and the largest duration, in ms."""
        return {
            "p50": round(self.percentile(50), 3),
            "p95": round(self.percentile(95), 3),
            "p99": round(self.percentile(99), 3),
            "max": round(self.largest_ms, 3),
        }


@dataclass(slots=True)
class LedgerMetrics:
    """Percentiles of the latency ledger of one kind of event.

    Ledgers are collected in `pending` and counted when percentiles are asked for, or
    when there are many of them.
    """

    wait: Percentiles = field(default_factory=Percentiles)
    queue: Percentiles = field(default_factory=Percentiles)
    compute: Percentiles = field(default_factory=Percentiles)
    pending: list[Ledger] = field(default_factory=list)

    def count(self) -> None:
        """Count the pending ledgers."""
        for ledger in self.pending:
            self.wait.add(ledger.wait_ms)
            self.queue.add(ledger.queue_ms)
            self.compute.add(ledger.compute_ms)
        self.pending.clear()

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the percentiles of each part in ms."""
        self.count()
        return {
            "wait_ms": self.wait.summary(),
            "queue_ms": self.queue.summary(),
            "compute_ms": self.compute.summary(),
        }
