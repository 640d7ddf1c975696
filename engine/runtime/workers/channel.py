"""A lane and what the engine keeps beside it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from neurovocal.engine.audio.signal_checks import SignalHealth
from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.stages import CommandedModel
from neurovocal.engine.contracts.types import Anchor, Block, Gap, Message
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.runtime.workers.privacy import AudioGate, NoAudio


@dataclass(slots=True, eq=False)
class Channel:
    """One channel of a source: its lane, its time and its counters."""

    lane: Lane
    timebase: TimeBase
    counts: Counter[str] = field(default_factory=Counter)
    level_db: float = -np.inf
    lag_ms: float = 0.0
    signal: SignalHealth | None = None  # of a live source
    source_rate: int = 1
    # None: all audio may leave. Nothing leaves before the outlet has said so.
    gate: AudioGate | NoAudio | None = field(default_factory=lambda: NoAudio(1))
    anchored: Message | None = None  # the newest anchor, as it was sent

    def begin(self, stream: str) -> None:
        """Hear another stream of the same kind, from its sample 0."""
        self.lane.reset()
        self.lane.info = replace(self.lane.info, stream=stream)
        self.timebase = TimeBase(self.lane.info.sample_rate)
        self.anchored = None

    def meter(self, block: Block) -> None:
        """Note how loud it is."""
        peak = float(np.abs(block.samples).max(initial=0.0))
        self.level_db = 20.0 * float(np.log10(peak)) if peak > 0 else -np.inf


def inherit(before: Lane, after: Lane) -> None:
    """What commands have changed stays so in a lane that is built anew."""
    for old, new in zip(before.models, after.models, strict=False):
        if isinstance(old.stage, CommandedModel) and old.plugin == new.plugin:
            new.stage.apply("set", new.stage.prepare("set", old.stage.options))


def pieces(item: Block | Gap | Anchor, rate: int) -> Iterator[Block | Gap | Anchor]:
    """A block, such as a whole file, in parts of at most a second.

    A sink thus hears audio about when it hears what is in it, and who stops the run
    does not wait for the end of a file.
    """
    if not isinstance(item, Block) or len(item.samples) <= rate:
        yield item
        return
    for first in range(0, len(item.samples), rate):
        samples = item.samples[first : first + rate]
        yield replace(item, start=item.start + first, samples=samples)
