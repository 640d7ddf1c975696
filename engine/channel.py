"""A lane and what the engine keeps beside it."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from neurovocal.engine.lane import Lane
from neurovocal.engine.timebase import TimeBase
from neurovocal.engine.types import Message


@dataclass(slots=True, eq=False)
class Channel:
    """One channel of a source: its lane, its time and its counters."""

    lane: Lane
    timebase: TimeBase
    counts: Counter[str] = field(default_factory=Counter)
    level_db: float = -np.inf
    lag_ms: float = 0.0
    anchored: Message | None = None  # the newest anchor, as it was sent
