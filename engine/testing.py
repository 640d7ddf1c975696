"""The conformance kit: what every plugin must survive, yours too.

Each ``check_...`` raises AssertionError with a sentence that says which promise
was broken. Doubles that tests need (a scripted source, sinks that collect, stall
or fail) are here as well, because plugin authors need them too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from threading import Event as Flag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.errors import EndOfStream
from neurovocal.engine.protocols import Sink, Source, SourceItem
from neurovocal.engine.types import (
    Anchor,
    Block,
    Float32,
    Frames,
    Gap,
    Message,
    Offset,
    Onset,
    Posteriors,
    StreamInfo,
)


def canonical(event: Any) -> tuple[Any, ...]:
    """An event as a tuple that compares by value, arrays byte for byte."""
    assert is_dataclass(event)
    values = [getattr(event, f.name) for f in fields(event) if f.name != "arrived_ns"]
    plain = [(v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values]
    return (type(event).__name__, *plain)


def recut(
    samples: Float32, lengths: Sequence[int], start: int = 0, *, copy: bool = True
) -> list[Block]:
    """Cut float32[n_samples, n_channels] into blocks of the given lengths, cycled."""
    blocks = []
    position, turn = 0, 0
    while position < len(samples):
        count = max(1, lengths[turn % len(lengths)])
        part = samples[position : position + count]
        blocks.append(Block(start + position, part.copy() if copy else part))
        position += count
        turn += 1
    return blocks


def song(sample_rate: int, seconds: float, *, seed: int = 0) -> NDArray[np.float32]:
    """Tone bursts of 60 to 120 ms with pauses over soft noise, [n_samples, 1]."""
    rng = np.random.default_rng(seed)
    n_samples = round(sample_rate * seconds)
    samples = rng.normal(0.0, 1e-3, n_samples)
    position = round(0.5 * sample_rate)
    while True:
        length = round(sample_rate * rng.uniform(0.06, 0.12))
        if position + length > n_samples - sample_rate // 10:
            return samples.astype(np.float32)[:, None]
        time = np.arange(length) / sample_rate
        pitch = sample_rate * rng.uniform(0.06, 0.2)
        burst = np.sin(2 * np.pi * pitch * time) * np.hanning(length)
        samples[position : position + length] += 0.3 * burst
        position += length + round(sample_rate * rng.uniform(0.05, 0.12))


def gather(
    stage: Any, items: Iterable[Any], *, flush: bool = True
) -> list[tuple[Any, ...]]:
    """Canonical events of a stage for some items and, if asked, its flush.

    Rows of arrays that follow each other in frames are joined, so that results
    can be compared however they were tiled.
    """
    events = [event for item in items for event in stage.process(item)]
    if flush:
        events += stage.flush()
    return [canonical(event) for event in _joined(events)]


def _joined(events: list[Any]) -> list[Any]:
    joined: list[Any] = []
    for event in events:
        last: Any = joined[-1] if joined else None
        if (
            isinstance(event, Frames | Posteriors)
            and type(last) is type(event)
            and last.first + len(last.values) == event.first
        ):
            values = np.concatenate([last.values, event.values])
            joined[-1] = type(event)(
                last.first, last.hop_length, last.frame_length, values
            )
        else:
            joined.append(event)
    return joined


def check_processor(
    make: Callable[[], Any],
    samples: Float32,
    *,
    seed: int = 0,
    stateful: bool = True,
) -> None:
    """Run a features or detector stage through everything the engine may do.

    Parameters
    ----------
    make : callable
        Builds a fresh stage.
    samples : float32[n_samples, 1]
        Audio in which the stage finds something.
    seed : int
        Of the random cuttings.
    stateful : bool
        Whether forgetting the past must change the result: a test that passes
        on a stage without memory would prove nothing.

    Raises
    ------
    AssertionError
        With the promise that was broken.
    """
    rng = np.random.default_rng(seed)
    whole = gather(make(), [Block(0, samples)])
    assert whole, "the stage found nothing in the test audio"
    kept = samples.copy()

    for _ in range(4):
        lengths = rng.integers(1, 3000, size=50).tolist()
        parts = gather(make(), recut(samples, lengths))
        assert parts == whole, f"recut: other events for blocks of {lengths[:5]}..."
    assert gather(make(), recut(samples, [64])) == whole, "recut: blocks of 64 differ"

    stage = make()
    gather(stage, recut(samples, [777]), flush=False)
    stage.reset()
    assert gather(stage, [Block(0, samples)]) == whole, "reset: something was kept"

    if stateful:
        stage = make()
        gather(stage, recut(samples[: len(samples) * 2 // 3], [1024]), flush=False)
        again = [
            event for event in stage.process(Block(len(samples) * 2 // 3, samples))
        ]
        assert [canonical(e) for e in again] != whole, "without reset: no memory at all"

    _check_gap(make, samples)
    _check_quiet(make, samples)
    assert np.array_equal(samples, kept), "the stage changed its input array"


def _check_gap(make: Callable[[], Any], samples: Float32) -> None:
    half = len(samples) // 2
    gap = Gap(half, half + 777, "overrun")
    after = samples[half:]
    items = [Block(0, samples[:half]), gap, Block(gap.stop, after)]
    cut = [
        *recut(samples[:half], [333]),
        gap,
        *recut(after, [1000, 17], start=gap.stop),
    ]
    with_gap = gather(make(), items)
    assert with_gap == gather(make(), cut), "gap: events depend on the blocks"
    events = [event for item in items for event in make().process(item)]
    for event in events:
        if isinstance(event, Frames):
            first = event.first * event.hop_length
            last = (event.first + len(event.values) - 1) * event.hop_length
            stop = last + event.frame_length
            assert stop <= gap.start or first >= gap.stop, "a frame spans the gap"
    _check_marks(make, items)


def _check_marks(make: Callable[[], Any], items: Iterable[Any]) -> None:
    """Each onset has one offset, segments do not overlap, none spans a gap."""
    stage = make()
    open_segment: Onset | None = None
    last_stop = 0
    for item in [*items, None]:
        events = stage.process(item) if item is not None else stage.flush()
        for event in list(events):
            if isinstance(event, Onset):
                assert open_segment is None, "an onset inside an open segment"
                assert event.sample >= last_stop, "segments overlap"
                open_segment = event
            elif isinstance(event, Offset):
                assert open_segment is not None, "an offset without its onset"
                assert event.segment == open_segment.segment, (
                    "offset of another segment"
                )
                assert event.onset == open_segment.sample, "the onset was changed"
                assert event.sample > event.onset, "an empty segment"
                open_segment, last_stop = None, event.sample
        if isinstance(item, Gap):
            assert open_segment is None, "a gap left a segment open"
            last_stop = item.stop
    assert open_segment is None, "flush left a segment open"


def _check_quiet(make: Callable[[], Any], samples: Float32) -> None:
    """Digital silence, a lone sample and overload neither fail nor yield NaN."""
    silence = np.zeros_like(samples)
    loud = np.clip(samples * 1e6, -1.0, 1.0)
    for audio in (silence, loud, samples[:1]):
        for event in [*make().process(Block(0, audio)), *make().flush()]:
            values = getattr(event, "values", np.zeros(1))
            assert np.isfinite(values).all(), "not a finite number in the result"


def check_source(make: Callable[[], Source]) -> None:
    """Read a finite source to its end, twice, and check what it promises.

    Raises
    ------
    AssertionError
        With the promise that was broken.
    """
    first, second = _read_all(make()), _read_all(make())
    assert first == second, "a second reading differs from the first"
    source = make()
    source.close()  # closing what was never opened must be harmless
    source.open()
    source.close()
    source.close()


def _read_all(source: Source) -> list[tuple[Any, ...]]:
    source.open()
    items: list[tuple[Any, ...]] = []
    position = 0
    info = source.info
    while True:
        try:
            item = source.read(1.0)
        except EndOfStream:
            break
        if item is None:
            continue
        if isinstance(item, StreamInfo):
            position, info = 0, item
        elif isinstance(item, Block):
            assert item.start == position, f"hole at sample {position}"
            assert item.samples.dtype == np.float32, "samples are not float32"
            assert item.samples.shape[1] == info.channels, "wrong number of channels"
            assert np.isfinite(item.samples).all(), "not a finite sample"
            position = item.stop
        elif isinstance(item, Gap):
            assert item.start == position, f"hole before the gap at {position}"
            assert item.stop >= item.start, "a gap that runs backwards"
            position = item.stop
        items.append(canonical(item))
    try:
        source.read(0.0)
    except EndOfStream:
        pass
    else:
        raise AssertionError("read after the end must raise EndOfStream again")
    source.close()
    return items


def check_sink(make: Callable[[], Sink], messages: Sequence[Message]) -> None:
    """Open, write every kind of message, flush and close, twice over.

    Raises
    ------
    AssertionError
        With the promise that was broken.
    """
    sink = make()
    sink.close()
    for _ in range(2):
        sink = make()
        sink.open()
        for message in messages:
            sink.write(message)
        sink.flush(1.0)
        sink.close()
        sink.close()


class ScriptedSource:
    """A source that plays a list of items, and raises what it finds in it.

    Parameters
    ----------
    info : StreamInfo
        Its stream.
    items : iterable
        Blocks, gaps, anchors, stream infos, None ("nothing yet"), or exceptions.
    live : bool
        Whether the engine must treat it as live.
    """

    def __init__(
        self,
        info: StreamInfo,
        items: Iterable[SourceItem | Exception | None],
        *,
        live: bool = False,
    ) -> None:
        self.info = info
        self.live = live
        self.opened = 0
        self.closed = 0
        self._items = iter(items)

    def open(self) -> None:
        """Count the call."""
        self.opened += 1

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item of the script."""
        item = next(self._items, EndOfStream())
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Count the call."""
        self.closed += 1


class CollectSink:
    """A sink that keeps what it gets.

    Parameters
    ----------
    wants : iterable of str, optional
        Kinds of events it asks for; default: what the engine gives by default.
    """

    def __init__(self, wants: Iterable[str] | None = None) -> None:
        if wants is not None:
            self.wants = frozenset(wants)
        self.messages: list[Message] = []
        self.opened = self.flushed = self.closed = 0

    def open(self) -> None:
        """Count the call."""
        self.opened += 1

    def write(self, message: Message) -> None:
        """Keep the message."""
        self.messages.append(message)

    def flush(self, timeout: float) -> None:
        """Count the call."""
        self.flushed += 1

    def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def events(self, *kinds: type) -> list[Any]:
        """Events of these types, in order; all without types."""
        events = [message.event for message in self.messages]
        return [e for e in events if not kinds or isinstance(e, kinds)]


class StalledSink(CollectSink):
    """A sink whose `write` does not return before `release` is set."""

    def __init__(self, wants: Iterable[str] | None = None) -> None:
        super().__init__(wants)
        self.release = Flag()
        self.entered = Flag()

    def write(self, message: Message) -> None:
        """Wait for `release`, then keep the message."""
        self.entered.set()
        self.release.wait()
        super().write(message)


class FailingSink(CollectSink):
    """A sink whose `write` fails while `broken` is true."""

    broken = True

    def write(self, message: Message) -> None:
        """Keep the message, or raise."""
        if self.broken:
            raise OSError("the disk is full")
        super().write(message)


ANCHOR_EPOCH = Anchor(0, 1_700_000_000_000_000_000)
