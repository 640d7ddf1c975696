"""Privacy gate: delays audio until it is known to be free of voices, or withholds it.

It stands between the source and the sinks: no sink ever gets a block that was not
judged. The lane itself gets all audio, and labels are not delayed.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from neurovocal.engine.support.calls import Calls

log = logging.getLogger("neurovocal")
Released: TypeAlias = Block | Withheld | Health
STAGE = "privacy gate"
VOICE = "human voice"
FAILED = "the privacy gate failed"
UNJUDGED = "not judged: a gap lies in it, or it is too short"
LABELS_ONLY = "labels only"

# A gate that takes more than this share of a live source's time is too slow: labels
# have priority.
_MOST_LOAD = 0.5

# After a failure it is called again when so much more audio has come.
_PAUSE_S = 10.0


@dataclass(slots=True)
class GateCounts:
    """Samples of the source: passed, withheld, or waiting for a decision."""

    passed: int = 0
    withheld: int = 0
    waiting: int = 0
    failures: int = 0

    def as_dict(self, mode: Mode) -> dict[str, object]:
        """Return the counters, as the ``stats`` message has them."""
        return {
            "mode": mode,
            "passed": self.passed,
            "withheld": self.withheld,
            "waiting": self.waiting,
            "failures": self.failures,
        }


class NoAudio:
    """Gate of the mode ``labels_only``: withholds all audio."""

    mode: Mode = "labels_only"
    lookahead = 0

    def __init__(self, rate: int) -> None:
        self.counts = GateCounts()
        self._withheld = _WithheldSpans(rate)

    def as_dict(self) -> dict[str, object]:
        """Return the numbers of samples by outcome."""
        return self.counts.as_dict(self.mode)

    def push(self, item: Block | Gap) -> Iterator[Released]:
        """Yield the interval that `item` completes; none of it is released."""
        if isinstance(item, Block):
            self.counts.withheld += len(item.samples)
            yield from self._withheld.add(item.start, item.stop, LABELS_ONLY)
        else:
            yield from self._withheld.close()

    def flush(self) -> Iterator[Released]:
        """Yield the last interval of the stream."""
        yield from self._withheld.close()


class AudioGate:
    """Delays audio until it is known to be free of voices, and withholds the rest.

    A sample passes if the gate has judged everything from `after` samples before it
    to `before` samples behind it, and found no voice there. What the gate gives no
    interval for is withheld, as what a gap cuts off.

    Parameters
    ----------
    gate : Gate
        Detector of voices; gets the audio of the source.
    rate : int
        Sample rate of the source in Hz.
    before_s, after_s : float
        Seconds that are withheld before and after a voice.
    now_ns : callable, optional
        Monotonic time, where time matters (live): a gate that is too slow counts
        as one that has failed.

    Attributes
    ----------
    counts : GateCounts
        Samples by what became of them.
    lookahead : int
        Samples by which released audio lags behind.
    calls : Calls
        Read by the watchdog.
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
        self.calls = Calls()
        self._gate, self._rate = gate, rate
        self.lookahead = round(before_s * rate)
        self._before, self._after = round(before_s * rate), round(after_s * rate)
        self._now_ns = now_ns
        self._waiting: deque[Block] = deque()
        self._blocked: deque[tuple[int, int, str]] = deque()
        self._judged = 0  # the gate's intervals reach so far without a hole
        self._resume = 0  # a gate that has failed is called again from here on
        self._withheld = _WithheldSpans(rate)
        self._failed = False
        self._has_flushed = False
        self._spent_ns = self._timed = 0
        self._group: Sequence[AudioGate] = (self,)

    def join(self, group: Sequence["AudioGate"]) -> None:
        """Withhold with these gates, itself among them: of all channels of a source."""
        self._group = group

    def as_dict(self) -> dict[str, object]:
        """Return the numbers of samples by outcome."""
        return self.counts.as_dict(self.mode)

    def push(self, item: Block | Gap) -> Iterator[Released]:
        """Yield the audio that `item` releases, and the intervals withheld for good."""
        if isinstance(item, Block):
            self._waiting.append(item)
            self.counts.waiting += len(item.samples)
        self._has_flushed = False
        yield from self._judge(item)
        judged = min(gate._judged for gate in self._group)
        yield from self._decide(judged - self._before)

    def flush(self) -> Iterator[Released]:
        """Decide about all waiting audio at the end of the stream; reset the gate."""
        for gate in self._group:  # a voice at the end of one channel counts for all
            yield from gate._judge_end()
        end = self._waiting[-1].stop if self._waiting else self._judged
        yield from self._decide(end)
        yield from self._withheld.close()
        self._blocked.clear()
        self._judged = self._resume = 0
        self._reset()

    def _judge_end(self) -> Iterator[Released]:
        """Judge the remaining audio of the stream; further calls do nothing."""
        if self._has_flushed:
            return
        self._has_flushed = True
        end = self._waiting[-1].stop if self._waiting else self._judged
        try:
            if self._resume <= end:
                with self.calls:
                    self._add(self._gate.flush())
        except Exception as error:
            yield self._fail(error, end)
        if self._judged < end:
            self._block(self._judged, end, UNJUDGED)

    def _judge(self, item: Block | Gap) -> Iterator[Released]:
        if item.stop <= self._resume:
            self._judged = item.stop  # after a failure: all of it is blocked already
            return
        if self._resume and isinstance(item, Block) and item.start < self._resume:
            self._block(item.start, item.stop + self._after, FAILED)
            self._judged = self._resume = item.stop
            return
        began_ns = self._now_ns() if self._now_ns else 0
        try:
            with self.calls:
                self._add(self._gate.process(item))
            self._check_load(item, began_ns)
        except Exception as error:
            yield self._fail(error, item.stop)
            return
        if isinstance(item, Gap):
            if self._judged < item.start:
                self._block(self._judged, item.start, UNJUDGED)
            self._judged = max(self._judged, item.stop)
        if self._failed and self._judged > self._resume:
            self._failed = False
            yield Health(STAGE, "healthy", "it works again: audio may leave")

    def _add(self, intervals: Iterable[VoiceInterval]) -> None:
        for interval in intervals:
            if interval.start > self._judged:
                self._block(self._judged, interval.start, UNJUDGED)
            if interval.voice:
                start, stop = interval.start - self._before, interval.stop + self._after
                self._block(start, stop, VOICE)
            self._judged = max(self._judged, interval.stop)

    def _check_load(self, item: Block | Gap, began_ns: int) -> None:
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
        """Withhold all waiting audio, and all that comes for a while."""
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
        """Withhold an interval of all channels of the group."""
        for gate in self._group:
            gate._block_own(start, stop, reason)

    def _block_own(self, start: int, stop: int, reason: str) -> None:
        last = self._blocked[-1] if self._blocked else None
        touches = last is not None and start <= last[1] and stop >= last[0]
        if last is not None and touches and last[2] == reason:
            self._blocked[-1] = (min(start, last[0]), max(stop, last[1]), reason)
        else:
            self._blocked.append((start, stop, reason))

    def _decide(self, limit: int) -> Iterator[Released]:
        """Release or withhold the waiting audio before `limit`."""
        while self._waiting and self._waiting[0].start < limit:
            block = self._waiting.popleft()
            stop = min(block.stop, limit)
            if stop < block.stop:
                self._waiting.appendleft(_part(block, stop, block.stop))
            self.counts.waiting -= stop - block.start
            yield from self._split(block, stop)
        while self._blocked and self._blocked[0][1] <= limit:
            self._blocked.popleft()

    def _split(self, block: Block, stop: int) -> Iterator[Released]:
        at = block.start
        while at < stop:
            reason, until = self._reason_at(at, stop)
            if reason is None:
                yield from self._withheld.close()
                self.counts.passed += until - at
                yield _part(block, at, until)
            else:
                self.counts.withheld += until - at
                yield from self._withheld.add(at, until, reason)
            at = until

    def _reason_at(self, sample: int, stop: int) -> tuple[str | None, int]:
        """Return why a sample is withheld (None: it is not), and up to where."""
        until = stop
        for first, last, reason in self._blocked:
            if first <= sample < last:
                return reason, min(last, stop)
            if sample < first:
                until = min(until, first)
        return None, until


class _WithheldSpans:
    """Joins withheld intervals to events of at most a second, cut at whole seconds."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._open: Withheld | None = None

    def add(self, start: int, stop: int, reason: str) -> Iterator[Withheld]:
        """Yield the events that ``[start, stop)`` completes."""
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
        """Yield the unfinished event, if any."""
        if self._open is not None:
            yield self._open
        self._open = None


def _part(block: Block, start: int, stop: int) -> Block:
    samples = block.samples[start - block.start : stop - block.start]
    return Block(start, samples, block.arrived_ns)
