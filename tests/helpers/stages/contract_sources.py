"""What each built-in source is put to the test with."""

import wave

import numpy as np
import pytest

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import DeviceError, EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Source
from neurovocal.engine.contracts.types import Block, Message, StreamInfo
from neurovocal.engine.testing import check_source, recut, song

RATE = 32_000
INFO = StreamInfo("cage", RATE)


def pcm(n_samples=5000):
    return (song(RATE, 1.0)[:n_samples, 0] * 32000).astype("<i2").tobytes()


def file(bench):
    for name in ("a.wav", "b.wav"):
        with wave.open(str(bench.folder / name), "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(2)
            recording.setframerate(RATE)
            recording.writeframes(pcm())
    for streams in ("one", "each"):
        check_source(lambda s=streams: bench.build(path=str(bench.folder), streams=s))


def folder(bench):
    (bench.folder / "card").mkdir()
    path = bench.folder / "card" / "a.wav"
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(RATE)
        recording.writeframes(pcm())
    states = iter(range(10))
    # Each has a memory of its own: what was taken once is not taken again.
    check_source(
        lambda: bench.build(
            path=str(path.parent),
            state=str(bench.folder / f"taken{next(states)}"),
            follow=False,
            **{"settle_s": 0, "poll_s": 0.01},
        )
    )


def pipe(bench):
    raw = bench.folder / "song.raw"
    raw.write_bytes(pcm())
    options = {"sample_rate": RATE, "command": ["cat", str(raw)], "live": False}
    check_source(lambda: bench.build(**options))


def recording(bench):
    folder = bench.folder / "kept"
    sink = Registry().get("sink", "recording")
    context = BuildContext(clock=ManualClock(), run="test", base=bench.folder)
    keeper = sink.build(sink.options(path=str(folder)), context)
    keeper.open()
    for seq, block in enumerate(recut(song(RATE, 0.5), [1000])):
        keeper.write(Message(INFO, block, seq, block.stop))
    keeper.close()
    check_source(lambda: bench.build(path=str(folder)))


def playback(bench):
    """Live: its blocks come as the machine lets them. Its samples do not differ."""
    path = bench.folder / "played.wav"
    with wave.open(str(path), "wb") as tape:
        tape.setnchannels(1)
        tape.setsampwidth(2)
        tape.setframerate(RATE)
        tape.writeframes(pcm())
    heard = []
    for _ in range(2):
        source = bench.build(path=str(path))
        assert source.live
        source.close()
        source.open()
        assert isinstance(source, Source)
        heard.append(np.concatenate(list(blocks_of(source))))
        source.close()
        source.close()
    assert np.array_equal(*heard)


def blocks_of(source):
    while True:
        try:
            item = source.read(0.1)
        except EndOfStream:
            return
        if isinstance(item, Block):
            yield item.samples


def synthetic(bench):
    check_source(lambda: bench.build(duration_s=1.0))


def microphone(bench):
    """Check opening and closing only: no two readings are equal."""
    source = bench.build(device="no such sound card", sample_rate=RATE)
    assert len(bench.problems) == 1
    bench.problems.clear()
    assert isinstance(source, Source)
    assert source.live
    source.close()
    with pytest.raises(DeviceError):
        source.open()
    source.close()
    source.close()
