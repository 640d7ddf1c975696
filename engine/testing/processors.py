"""What features, detectors and models must survive (see `engine.testing`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from neurovocal.engine.contracts.stages import ModelItem
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
    """A source may reuse its array, and hand out one column of several channels."""
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
    """Exactly the frames of the stream's grid that lie whole between gaps."""
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
    """Segments are closed, also by a gap and an end in the middle of one."""
    whole = [Block(0, samples)]
    marks = [*(make().process(whole[0]))]
    inside = [m.sample for m in marks if isinstance(m, Offset)][:3]
    for cut in [len(samples) // 2, *(sample - 1 for sample in inside)]:
        _check_order(make(), _with_gap(samples, cut))
        _check_order(make(), [Block(0, samples[:cut])])


def _check_order(stage: Any, items: Iterable[Any]) -> None:
    """Each onset has one offset, segments do not overlap, none spans a gap."""
    open_segment: Onset | None = None
    last_stop = segments = heard_to = 0
    for item in [*items, None]:
        if item is not None and not isinstance(item, Gap):
            heard_to = item.stop
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
                assert event.sample <= heard_to, "a segment reaches into the unheard"
                open_segment, last_stop = None, event.sample
                segments += 1
        if isinstance(item, Gap):
            assert open_segment is None, "a gap left a segment open"
            last_stop = heard_to = item.stop
    assert open_segment is None, "flush left a segment open"
    assert not list(stage.flush()), "a second flush has something to say"


def _check_lateness(make: Callable[[], Any], samples: Float32) -> None:
    """Events come as soon as the stated latency allows."""
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
            # Of an open segment the past may still be told: its own length.
            allowed = latency
            if isinstance(event, Offset) and open_since is not None:
                allowed += event.sample - open_since
            late = block.start - allowed - (known if known is not None else block.stop)
            assert late <= 0, (
                f"{type(event).__name__} came {late} samples later than the stated "
                f"latency of {latency} allows"
            )


def _check_quiet(make: Callable[[], Any], samples: Float32) -> None:
    """Digital silence, a lone sample and overload neither fail nor yield NaN."""
    silence = np.zeros_like(samples)
    loud = np.clip(samples * 1e6, -1.0, 1.0)
    for audio in (silence, loud, samples[:1], samples[:0]):
        for event in [*make().process(Block(0, audio)), *make().flush()]:
            values = getattr(event, "values", np.zeros(1))
            assert np.isfinite(values).all(), "not a finite number in the result"
        _check_order(make(), [Block(0, audio)])


def _check_not_a_number(make: Callable[[], Any], samples: Float32, whole: Any) -> None:
    """NaN, which sources keep away, does no lasting harm should it come in."""
    stage = make()
    poison = samples[:5000].copy()
    poison[100:200] = np.nan
    with np.errstate(all="ignore"):
        for block in recut(poison, [700]):
            list(stage.process(block))
        list(stage.flush())
    stage.reset()
    assert gather(stage, [Block(0, samples)]) == whole, "reset: NaN was kept"


def check_model(make: Callable[[], Any], items: Sequence[ModelItem]) -> None:
    """Run a model through what a lane may do with it.

    Parameters
    ----------
    make : callable
        Builds a fresh model.
    items : sequence of Frames, Onset and Offset
        As a lane gives them: the frames of a tile, then the marks in it; every
        segment closed. Something must come of them.

    Raises
    ------
    AssertionError
        With the promise that was broken.
    """
    kept = [canonical(item) for item in items]
    whole = gather(make(), items)
    assert [canonical(item) for item in items] == kept, "the model changed its input"
    assert whole, "the model has nothing to say of the test's frames"
    assert gather(make(), items) == whole, "two models differ on the same frames"

    stage = make()
    gather(stage, items, flush=False)
    stage.reset()
    assert gather(stage, items) == whole, "reset: something was kept"

    _check_answers(make(), items)
    last = next(i for i in reversed(items) if isinstance(i, Frames))
    stop = (last.first + len(last.values)) * last.hop_length
    hops = -(-stop // last.hop_length) + 30
    gap = Gap(stop + last.frame_length, hops * last.hop_length, GAP_OVERRUN)
    later = [_moved(item, hops, last.hop_length) for item in items]
    stage = make()
    gather(stage, [*items, gap], flush=False)
    after = gather(stage, later)
    assert after == gather(make(), later), "gap: something was kept"


def _check_answers(stage: Any, items: Sequence[ModelItem]) -> None:
    heard: dict[int, Onset] = {}
    for item in items:
        if isinstance(item, Onset):
            heard[item.segment] = item
        for event in stage.process(item):
            values = getattr(event, "values", np.zeros(1))
            assert np.isfinite(values).all(), "not a finite number in the result"
            if isinstance(event, Label):
                onset = heard.get(event.segment)
                assert onset is not None, "a label of a segment that never began"
                assert event.onset == onset.sample, "the onset was changed"
                assert 0.0 <= event.posterior <= 1.0, "a posterior beyond 0 and 1"
                done = event.offset is not None
                assert done or event.status != "final", "final, but without offset"


def _moved(item: ModelItem, hops: int, hop: int) -> ModelItem:
    """The same item `hops` frames later."""
    match item:
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
