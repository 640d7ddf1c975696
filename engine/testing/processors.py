"""Conformance checks of features, detectors and models."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from neurovocal.engine.contracts.stages import ModelItem, SampleModelItem
from neurovocal.engine.contracts.types import (
    GAP_OVERRUN,
    Block,
    Float32,
    Frames,
    Gap,
    Label,
    Offset,
    Onset,
)
from neurovocal.engine.testing.signals import canonical, gather, recut


def check_processor(
    make: Callable[[], Any],
    samples: Float32,
    *,
    seed: int = 0,
    stateful: bool = True,
) -> None:
    """Check a features or detector stage against the requirements of a lane.

    Any division into blocks, reset, gaps, latency, silence, overload, NaN, and arrays
    that the caller reuses.

    Parameters
    ----------
    make : callable
        Returns a new stage.
    samples : float32[n_samples, 1]
        Audio for which the stage has results.
    seed : int
        Seed of the random block lengths.
    stateful : bool
        Whether a missing reset must change the result: otherwise the check of `reset`
        would pass for a stage without state.

    Raises
    ------
    AssertionError
        The message names the violated requirement.
    """
    kept = samples.copy()
    whole = gather(make(), [Block(0, samples)])
    assert np.array_equal(samples, kept), "the stage changed its input array"
    assert whole, "the stage found nothing in the test audio"
    _check_cuts(make, samples, whole, np.random.default_rng(seed))
    _check_arrays(make, samples, whole)
    _check_memory(make, samples, whole, stateful=stateful)
    _check_gap(make, samples)
    _check_frames(make, samples)
    _check_marks(make, samples)
    _check_lateness(make, samples)
    _check_quiet(make, samples)
    _check_not_a_number(make, samples, whole)
    assert np.array_equal(samples, kept), "the stage changed its input array"


def _check_cuts(
    make: Callable[[], Any], samples: Float32, whole: Any, rng: np.random.Generator
) -> None:
    for _ in range(4):
        lengths = rng.integers(1, 3000, size=50).tolist()
        parts = gather(make(), recut(samples, lengths))
        assert parts == whole, f"recut: other events for blocks of {lengths[:5]}..."
    assert gather(make(), recut(samples, [64])) == whole, "recut: blocks of 64 differ"
    short = samples[:4096]
    single = gather(make(), recut(short, [1]))
    assert single == gather(make(), [Block(0, short)]), "recut: lone samples differ"


def _check_arrays(make: Callable[[], Any], samples: Float32, whole: Any) -> None:
    """Check arrays that the source reuses, and a column of several channels."""
    columns = np.repeat(samples, 3, axis=1)
    columns[:, [0, 2]] = 0.7
    column = Block(0, columns[:, 1:2])
    assert gather(make(), [column]) == whole, "one column of several channels differs"

    buffer = np.empty((1000, 1), np.float32)

    def reused() -> Iterator[Block]:
        for block in recut(samples, [1000]):
            view = buffer[: len(block.samples)]
            view[:] = block.samples
            yield Block(block.start, view)
            buffer[:] = np.nan

    assert gather(make(), reused()) == whole, "the stage keeps its input array"


def _check_memory(
    make: Callable[[], Any], samples: Float32, whole: Any, *, stateful: bool
) -> None:
    stage = make()
    gather(stage, recut(samples, [777]), flush=False)
    stage.reset()
    assert gather(stage, [Block(0, samples)]) == whole, "reset: something was kept"
    if not stateful:
        return
    stage, cut = make(), len(samples) * 2 // 3
    gather(stage, recut(samples[:cut], [1024]), flush=False)
    again = [canonical(event) for event in stage.process(Block(cut, samples))]
    assert again != whole, "without reset: no memory at all"


def _with_gap(samples: Float32, cut: int, missing: int = 777) -> list[Block | Gap]:
    gap = Gap(cut, cut + missing, GAP_OVERRUN)
    return [Block(0, samples[:cut]), gap, Block(gap.stop, samples[cut:])]


def _check_gap(make: Callable[[], Any], samples: Float32) -> None:
    half = len(samples) // 2
    for missing in (777, 0):
        items = _with_gap(samples, half, missing)
        gap = items[1]
        assert isinstance(gap, Gap)
        cut = [
            *recut(samples[:half], [333]),
            gap,
            *recut(samples[half:], [1000, 17], start=gap.stop),
        ]
        same = gather(make(), items) == gather(make(), cut)
        assert same, "gap: events depend on the blocks"


def _check_frames(make: Callable[[], Any], samples: Float32) -> None:
    """Check that the frames are those of the grid that no gap interrupts."""
    stage = make()
    if not hasattr(stage, "hop_length"):
        return
    hop, length = stage.hop_length, stage.frame_length
    cut = len(samples) // 2 + 1
    items = _with_gap(samples, cut)
    got: list[int] = []
    for event in [*(e for item in items for e in stage.process(item)), *stage.flush()]:
        assert isinstance(event, Frames), f"a features stage made {event!r}"
        stated = (event.hop_length, event.frame_length)
        assert stated == (hop, length), "frames of another grid than stated"
        assert event.values.dtype == np.float32, "frames are not float32"
        shape = (len(event.values), stage.n_bins)
        assert event.values.shape == shape, "frames of another shape than stated"
        got += range(event.first, event.first + len(event.values))
    expected: list[int] = []
    for start, stop in ((0, cut), (cut + 777, len(samples) + 777)):
        expected += range(-(-start // hop), (stop - length) // hop + 1)
    inside = set(expected)
    assert all(frame in inside for frame in got), "a frame spans the gap or the end"
    assert got == expected, "frames are missing, doubled or out of order"


def _check_marks(make: Callable[[], Any], samples: Float32) -> None:
    """Check that a gap and the end of the stream close an open segment."""
    whole = [Block(0, samples)]
    marks = [*(make().process(whole[0]))]
    inside = [m.sample for m in marks if isinstance(m, Offset)][:3]
    for cut in [len(samples) // 2, *(sample - 1 for sample in inside)]:
        _check_order(make(), _with_gap(samples, cut))
        _check_order(make(), [Block(0, samples[:cut])])


def _check_order(stage: Any, items: Iterable[Any]) -> None:
    """Check that onsets and offsets alternate, in order, without spanning a gap."""
    open_segment: Onset | None = None
    last_stop = segments = processed_to = 0
    for item in [*items, None]:
        if item is not None and not isinstance(item, Gap):
            processed_to = item.stop
        events = stage.process(item) if item is not None else stage.flush()
        for event in list(events):
            if isinstance(event, Onset):
                assert open_segment is None, "an onset inside an open segment"
                assert event.sample >= last_stop, "segments overlap or span a gap"
                assert event.segment == segments, "segments are not counted 0, 1, 2"
                open_segment = event
            elif isinstance(event, Offset):
                assert open_segment is not None, "an offset without its onset"
                same = event.segment == open_segment.segment
                assert same, "an offset of another segment"
                assert event.onset == open_segment.sample, "the onset was changed"
                assert event.sample > event.onset, "an empty segment"
                assert event.sample <= processed_to, "a segment ends in the future"
                open_segment, last_stop = None, event.sample
                segments += 1
        if isinstance(item, Gap):
            assert open_segment is None, "a gap left a segment open"
            last_stop = processed_to = item.stop
    assert open_segment is None, "flush left a segment open"
    assert not list(stage.flush()), "a second flush returns events"


def _check_lateness(make: Callable[[], Any], samples: Float32) -> None:
    """Check that no event is later than the stated latency."""
    stage = make()
    latency, open_since = stage.latency, None
    assert latency >= 0, "a latency below zero"
    for block in recut(samples, [64]):
        for event in stage.process(block):
            known = getattr(event, "sample", None)
            if isinstance(event, Frames):
                known = event.first * event.hop_length + event.frame_length
            if isinstance(event, Onset):
                open_since = event.sample
            # An offset may lie before the present by the length of its segment, too.
            allowed = latency
            if isinstance(event, Offset) and open_since is not None:
                allowed += event.sample - open_since
            late = block.start - allowed - (known if known is not None else block.stop)
            assert late <= 0, (
                f"{type(event).__name__} came {late} samples later than the stated "
                f"latency of {latency} allows"
            )


def _check_quiet(make: Callable[[], Any], samples: Float32) -> None:
    """Check that silence, a single sample and overload give finite results."""
    silence = np.zeros_like(samples)
    loud = np.clip(samples * 1e6, -1.0, 1.0)
    for audio in (silence, loud, samples[:1], samples[:0]):
        for event in [*make().process(Block(0, audio)), *make().flush()]:
            values = getattr(event, "values", np.zeros(1))
            assert np.isfinite(values).all(), "not a finite number in the result"
        _check_order(make(), [Block(0, audio)])


def _check_not_a_number(make: Callable[[], Any], samples: Float32, whole: Any) -> None:
    """Check that NaN has no effect after a reset."""
    stage = make()
    damaged = samples[:5000].copy()
    damaged[100:200] = np.nan
    with np.errstate(all="ignore"):
        for block in recut(damaged, [700]):
            list(stage.process(block))
        list(stage.flush())
    stage.reset()
    assert gather(stage, [Block(0, samples)]) == whole, "reset: NaN was kept"


def check_model(
    make: Callable[[], Any],
    items: Sequence[ModelItem] | Sequence[SampleModelItem],
    *,
    grid: int = 1,
) -> None:
    """Check a model against the requirements of a lane: determinism, reset, gaps.

    Parameters
    ----------
    make : callable
        Returns a new model.
    items : sequence of Frames or Block, Onset and Offset
        Items in the order of a lane: the frames of a tile, then its marks, with every
        segment closed. The model must have results for them. For a model that consumes
        samples, blocks in place of frames.
    grid : int
        For blocks: samples by whose multiples audio can be moved with the same result.

    Raises
    ------
    AssertionError
        The message names the violated requirement.
    """
    kept = [canonical(item) for item in items]
    whole = gather(make(), items)
    assert [canonical(item) for item in items] == kept, "the model changed its input"
    assert whole, "the model has no result for the test's frames"
    assert gather(make(), items) == whole, "two models differ on the same frames"

    stage = make()
    gather(stage, items, flush=False)
    stage.reset()
    assert gather(stage, items) == whole, "reset: something was kept"

    _check_labels(make(), items)
    last = next(i for i in reversed(items) if isinstance(i, Frames | Block))
    if isinstance(last, Frames):
        hop = last.hop_length
        stop = (last.first + len(last.values)) * hop
        hops, start = -(-stop // hop) + 30, stop + last.frame_length
    else:
        hop, start = grid, last.stop
        hops = -(-start // hop) + 30
    gap = Gap(start, hops * hop, GAP_OVERRUN)
    later = [_moved(item, hops, hop) for item in items]
    stage = make()
    gather(stage, [*items, gap], flush=False)
    after = gather(stage, later)
    assert after == gather(make(), later), "gap: something was kept"


def _check_labels(stage: Any, items: Sequence[Any]) -> None:
    onsets: dict[int, Onset] = {}
    for item in items:
        if isinstance(item, Onset):
            onsets[item.segment] = item
        for event in stage.process(item):
            values = getattr(event, "values", np.zeros(1))
            assert np.isfinite(values).all(), "not a finite number in the result"
            if isinstance(event, Label):
                onset = onsets.get(event.segment)
                assert onset is not None, "a label of a segment that never began"
                assert event.onset == onset.sample, "the onset was changed"
                assert 0.0 <= event.posterior <= 1.0, "a posterior beyond 0 and 1"
                done = event.offset is not None
                assert done or event.status != "final", "final, but without offset"


def _moved(item: Any, hops: int, hop: int) -> Any:
    """Return an item moved by `hops` frames."""
    match item:
        case Block():
            return replace(item, start=item.start + hops * hop)
        case Frames():
            return replace(item, first=item.first + hops)
        case Onset():
            return replace(item, sample=item.sample + hops * hop)
        case Offset():
            return replace(
                item, onset=item.onset + hops * hop, sample=item.sample + hops * hop
            )
        case Gap():
            return replace(
                item, start=item.start + hops * hop, stop=item.stop + hops * hop
            )
