"""Conformance checks of sources and sinks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.stages import Sink, Source
from neurovocal.engine.contracts.types import Block, Gap, Message, StreamInfo
from neurovocal.engine.testing.signals import canonical


def check_source(make: Callable[[], Source]) -> None:
    """Check a finite source: reads it to its end, twice.

    Raises
    ------
    AssertionError
        The message names the violated requirement.
    """
    first, second = _read_all(make()), _read_all(make())
    assert first == second, "a second reading differs from the first"
    source = make()
    with _requirement("closing what was never opened must be harmless"):
        source.close()
    source.open()
    with _requirement("closing twice must be harmless"):
        source.close()
        source.close()


def _read_all(source: Source) -> list[tuple[Any, ...]]:
    source.open()
    items: list[tuple[Any, ...]] = []
    position = 0
    try:
        info = source.info
    except RuntimeError:
        info = None  # the first item must be a StreamInfo
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
            assert info is not None, "samples before their stream is known"
            assert item.samples.ndim == 2, "samples are not [n_samples, n_channels]"
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
    """Check a sink: open, write messages, flush and close it, and open it again.

    The engine reopens a sink that failed: what it has written must not prevent that.

    Raises
    ------
    AssertionError
        The message names the violated requirement.
    """
    sink = make()
    with _requirement("closing what was never opened must be harmless"):
        sink.close()
    for each in (sink, sink, make()):
        each.open()
        for message in messages:
            each.write(message)
        each.flush(1.0)
        each.close()
        with _requirement("closing twice must be harmless"):
            each.close()


@contextmanager
def _requirement(sentence: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{sentence}: {error!r}") from error
