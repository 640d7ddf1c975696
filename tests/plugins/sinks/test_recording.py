"""Recording sink: the recording source replays its files exactly."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import AudioFileError, ConfigError, EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block, Gap, Message, StreamInfo
from neurovocal.engine.testing import check_source, recut
from neurovocal.plugins.sinks import recording as sink_recording
from neurovocal.plugins.sources import recording as source_recording

CONTEXT = BuildContext(ManualClock(), "test")
INFO = StreamInfo("day 1/bird.ch2", 22050)


def keep(folder, items):
    sink = sink_recording.plugin.build(
        sink_recording.RecordingOptions(path=str(folder)), CONTEXT
    )
    sink.open()
    for seq, item in enumerate(items):
        sink.write(Message(INFO, item, seq, item.stop))
    sink.close()


def play(folder, **options):
    return source_recording.plugin.build(
        source_recording.RecordedOptions(
            path=str(folder), stream=INFO.stream, **options
        ),
        CONTEXT,
    )


def read(source):
    source.open()
    items = []
    try:
        while True:
            items.append(source.read(0.0))
    except EndOfStream:
        source.close()
    return items


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(1, 500), st.integers(0, 300)), min_size=1, max_size=6
    ),
    length=st.integers(1, 700),
)
def test_recorded_samples_and_gaps_are_replayed(tmp_path_factory, pieces, length):
    folder = tmp_path_factory.mktemp("kept")
    rng = np.random.default_rng(0)
    items, position = [], 0
    for index, (count, missing) in enumerate(pieces):
        samples = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
        items += recut(samples, [64], start=position)
        position += count
        if index + 1 < len(pieces):
            items.append(Gap(position, position + missing, f"reason {index}"))
            position += missing
    keep(folder, items)
    info, *found = read(play(folder, block_length=length))
    assert info == INFO
    assert [i for i in found if isinstance(i, Gap)] == [
        i for i in items if isinstance(i, Gap)
    ]
    for each in (found, items):
        assert all(a.stop == b.start for a, b in pairwise(each))
    joined = [
        np.concatenate([i.samples for i in each if isinstance(i, Block)])
        for each in (found, items)
    ]
    assert np.array_equal(*joined)


def test_conformance(tmp_path):
    keep(tmp_path, recut(np.ones((1000, 1), np.float32), [100]))
    check_source(lambda: play(tmp_path))


def test_missing_and_damaged_recordings_are_named(tmp_path):
    options = source_recording.RecordedOptions(path=str(tmp_path), stream="none")
    (problem,) = source_recording.plugin.check(options, CONTEXT)
    assert "none" in problem
    keep(tmp_path, recut(np.ones((1000, 1), np.float32), [100]))
    (tmp_path / f"{sink_recording.stream_file_name(INFO.stream)}.jsonl").write_text("{")
    with pytest.raises(AudioFileError, match="not a complete recording"):
        play(tmp_path).open()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        keep(tmp_path / "file" / "below", [])
