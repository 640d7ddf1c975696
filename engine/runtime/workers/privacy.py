"""What audio may leave the lanes: nothing that a gate has not found free of voices.

Between the source and the sinks: no sink ever gets a block that was not judged. The
lane itself hears everything, and labels wait for nothing.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from neurovocal.engine.contracts.options import Mode
from neurovocal.engine.contracts.stages import Gate, VoiceInterval
from neurovocal.engine.contracts.types import (
    Block,
    Gap,
    Health,
    Withheld,
)

log = logging.getLogger("neurovocal")
Released: TypeAlias = Block | Withheld | Health
STAGE = "privacy gate"
VOICE = "human voice"
FAILED = "the privacy gate failed"
LABELS_ONLY = "labels only"

# A gate that takes more than this share of a live source's time is too slow: labels
# come first.
_MOST_LOAD = 0.5

# After a failure it is tried again when so much more audio has come.
_PAUSE_S = 10.0


@dataclass(slots=True)
class GateCounts:
    """Samples of the source: all of them end up in one of the three."""

    passed: int = 0
    withheld: int = 0
    waiting: int = 0
    failures: int = 0

    def as_dict(self, mode: Mode) -> dict[str, object]:
        """The counters, as ``stats`` tells them."""
        return {
            "mode": mode,
            "passed": self.passed,
            "withheld": self.withheld,
            "waiting": self.waiting,
            "failures": self.failures,
        }


class NoAudio:
    """Lets nothing out: ``labels_only``."""

    mode: Mode = "labels_only"
    lookahead = 0

    def __init__(self, rate: int) -> None:
        self.counts = GateCounts()
        self._tally = _Tally(rate)

    def as_dict(self) -> dict[str, object]:
        """What became of the audio, in samples."""
        return self.counts.as_dict(self.mode)

    def push(self, item: Block | Gap) -> Iterator[Released]:
        """Withhold it."""
        if isinstance(item, Block):
            self.counts.withheld += len(item.samples)
            yield from self._tally.add(item.start, item.stop, LABELS_ONLY)
        else:
            yield from self._tally.close()

    def flush(self) -> Iterator[Released]:
        """End of the stream."""
        yield from self._tally.close()


class AudioGate:
    """Delays audio until it is known to be free, and withholds all else.

    A sample passes if the gate has judged everything from `after` samples before it
    to `before` samples behind it, and found no voice there.

    Parameters
    ----------
    gate : Gate
        The detector; it hears the audio of the source.
    rate : int
        Sample rate of the source in Hz.
    before_s, after_s : float
        What is withheld before and after a voice.
    now_ns : callable, optional
        Monotonic time, where time matters (live): a gate that is too slow counts
        as one that has failed.
    """

    mode: Mode = "gate"

    def __init__(
        self,
        gate: Gate,
        rate: int,
        before_s: float,
        after_s: float,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        self.counts = GateCounts()
        self._gate, self._rate = gate, rate
        self.lookahead = round(before_s * rate)
        self._before, self._after = round(before_s * rate), round(after_s * rate)
        self._now_ns = now_ns
        self._waiting: deque[Block] = deque()
        self._blocked: deque[tuple[int, int, str]] = deque()
        self._judged = 0  # verdicts reach so far without a hole
        self._resume = 0  # a gate that has failed is asked again from here on
        self._tally = _Tally(rate)
        self._failed = False
        self._spent_ns = self._timed = 0

    def as_dict(self) -> dict[str, object]:
        """What became of the audio, in samples."""
        return self.counts.as_dict(self.mode)

    def push(self, item: Block | Gap) -> Iterator[Released]:
        """What `item` lets out: audio that may go, and what is withheld for good."""
        if isinstance(item, Block):
            self._waiting.append(item)
            self.counts.waiting += len(item.samples)
        yield from self._judge(item)
        yield from self._decide(self._judged - self._before)

    def flush(self) -> Iterator[Released]:
        """End of the stream: all that waits is decided; the gate forgets."""
        end = self._waiting[-1].stop if self._waiting else self._judged
        try:
            if self._resume <= end:
                self._take(self._gate.flush())
        except Exception as error:
            yield self._fail(error, end)
        if self._judged < end:
            self._block(self._judged, end, FAILED)
        yield from self._decide(end)
        yield from self._tally.close()
        self._blocked.clear()
        self._judged = self._resume = 0
        self._reset()

    def _judge(self, item: Block | Gap) -> Iterator[Released]:
        if item.stop <= self._resume:
            self._judged = item.stop  # the gate rests: all of this is blocked already
            return
        if self._resume and isinstance(item, Block) and item.start < self._resume:
            self._block(item.start, item.stop + self._after, FAILED)
            self._judged = self._resume = item.stop
            return
        began_ns = self._now_ns() if self._now_ns else 0
        try:
            self._take(self._gate.process(item))
            self._watch_time(item, began_ns)
        except Exception as error:
            yield self._fail(error, item.stop)
            return
        if isinstance(item, Gap):
            if self._judged < item.start:
                self._block(self._judged, item.start, FAILED)
            self._judged = item.stop
        if self._failed and self._judged > self._resume:
            self._failed = False
            yield Health(STAGE, "healthy", "it works again: audio may leave")

    def _take(self, verdicts: Iterable[VoiceInterval]) -> None:
        for verdict in verdicts:
            if verdict.start > self._judged:
                self._block(self._judged, verdict.start, FAILED)
            if verdict.voice:
                start, stop = verdict.start - self._before, verdict.stop + self._after
                self._block(start, stop, VOICE)
            self._judged = max(self._judged, verdict.stop)

    def _watch_time(self, item: Block | Gap, began_ns: int) -> None:
        if self._now_ns is None or isinstance(item, Gap):
            return
        self._spent_ns += self._now_ns() - began_ns
        self._timed += len(item.samples)
        if self._timed < self._rate:
            return
        load = self._spent_ns * self._rate / (self._timed * 1e9)
        self._spent_ns = self._timed = 0
        if load > _MOST_LOAD:
            raise TimeoutError(f"it needs {load:.1f} s for a second of audio")

    def _fail(self, error: Exception, stop: int) -> Health:
        """Nothing that waits may leave, and nothing for a while."""
        self.counts.failures += 1
        first = self._waiting[0].start if self._waiting else self._judged
        self._resume = stop + round(_PAUSE_S * self._rate)
        self._block(first, self._resume + self._after, FAILED)
        self._judged = stop
        self._failed = True
        self._reset()
        reason = f"{type(error).__name__}: {error}"
        log.warning("the privacy gate failed, no audio leaves: %s", reason)
        return Health(STAGE, "failed", f"no audio leaves, labels go on: {reason}")

    def _reset(self) -> None:
        try:
            self._gate.reset()
        except Exception as error:
            log.warning("the privacy gate cannot be reset: %r", error)

    def _block(self, start: int, stop: int, reason: str) -> None:
        last = self._blocked[-1] if self._blocked else None
        if last is not None and last[2] == reason and start <= last[1]:
            self._blocked[-1] = (min(start, last[0]), max(stop, last[1]), reason)
        else:
            self._blocked.append((start, stop, reason))

    def _decide(self, limit: int) -> Iterator[Released]:
        """Let out or withhold what lies before `limit`."""
        while self._waiting and self._waiting[0].start < limit:
            block = self._waiting.popleft()
            stop = min(block.stop, limit)
            if stop < block.stop:
                self._waiting.appendleft(_part(block, stop, block.stop))
            self.counts.waiting -= stop - block.start
            yield from self._divide(block, stop)
        while self._blocked and self._blocked[0][1] <= limit:
            self._blocked.popleft()

    def _divide(self, block: Block, stop: int) -> Iterator[Released]:
        at = block.start
        while at < stop:
            reason, until = self._at(at, stop)
            if reason is None:
                yield from self._tally.close()
                self.counts.passed += until - at
                yield _part(block, at, until)
            else:
                self.counts.withheld += until - at
                yield from self._tally.add(at, until, reason)
            at = until

    def _at(self, sample: int, stop: int) -> tuple[str | None, int]:
        """Why a sample is withheld, or None, and up to where that holds at least."""
        until = stop
        for first, last, reason in self._blocked:
            if first <= sample < last:
                return reason, min(last, stop)
            if sample < first:
                until = min(until, first)
        return None, until


class _Tally:
    """Joins what is withheld to events of at most a second, cut at whole seconds."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._open: Withheld | None = None

    def add(self, start: int, stop: int, reason: str) -> Iterator[Withheld]:
        now = self._open
        if now is not None and (now.stop != start or now.reason != reason):
            yield from self.close()
            now = None
        at = now.start if now is not None else start
        while (edge := (at // self._rate + 1) * self._rate) <= stop:
            yield Withheld(at, edge, reason)
            at = edge
        self._open = Withheld(at, stop, reason) if at < stop else None

    def close(self) -> Iterator[Withheld]:
        if self._open is not None:
            yield self._open
        self._open = None


def _part(block: Block, start: int, stop: int) -> Block:
    samples = block.samples[start - block.start : stop - block.start]
    return Block(start, samples, block.arrived_ns)
