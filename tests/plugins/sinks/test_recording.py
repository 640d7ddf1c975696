"""Recording sink: the recording source replays its files exactly."""

import os
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stages.runners import make_runner

from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import (
    AudioFileError,
    ConfigError,
    Disconnected,
    EndOfStream,
)
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block, Gap, Message, StreamInfo
from neurovocal.engine.testing import (
    CollectSink,
    ScriptedSource,
    check_source,
    recut,
)
from neurovocal.plugins.sinks import recording as sink_recording
from neurovocal.plugins.sources import recording as source_recording

CONTEXT = BuildContext(ManualClock(), "test")
INFO = StreamInfo("day 1/bird.ch2", 22050)


def keep(folder, items, rate=INFO.sample_rate):
    """Write items to a recording; gaps come at `rate`, that of the lane."""
    sink = sink_recording.plugin.build(
        sink_recording.RecordingOptions(path=str(folder)), CONTEXT
    )
    sink.open()
    for seq, item in enumerate(items):
        at_rate = rate if isinstance(item, Gap) else INFO.sample_rate
        info = StreamInfo(INFO.stream, at_rate)
        sink.write(Message(info, item, seq, item.stop))
    sink.end_stream(INFO.stream)
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
    if pieces[0][1] % 2:
        items.append(Gap(position, position + 7, "the last"))
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
    with pytest.raises(
        AudioFileError, match="line 1 is not the timeline of a recording"
    ):
        play(tmp_path).open()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        keep(tmp_path / "file" / "below", [])


@settings(max_examples=30, deadline=None)
@example(rate=8000, pieces=[(5, [0, 0]), (5, [0])])  # rounded beyond the next block
@given(
    rate=st.sampled_from([8000, 16000, 32000, 48000]),
    pieces=st.lists(
        st.tuples(
            st.integers(5, 300),
            st.lists(st.integers(0, 90), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_a_replayed_lane_gets_the_gaps_that_the_lane_got(
    tmp_path_factory, rate, pieces
):
    folder = tmp_path_factory.mktemp("kept")
    items, kept, position = [], [], 0
    resampler = Resampler(INFO.sample_rate, rate)
    for count, gaps in pieces:
        block = Block(position, np.zeros((count, 1), np.float32))
        position += count
        items.append(block)
        kept += [block]
        list(resampler.process(block))
        for missing in gaps:
            gap = Gap(position, position + missing, f"reason {len(items)}")
            position += missing
            items.append(gap)
            kept += [i for i in resampler.process(gap) if isinstance(i, Gap)]
    keep(folder, kept, rate)
    again = Resampler(INFO.sample_rate, rate)
    _, *found = read(play(folder))
    lane_gaps = [
        out for item in found for out in again.process(item) if isinstance(out, Gap)
    ]
    assert lane_gaps == [item for item in kept if isinstance(item, Gap)]


RATE = 1000


def sounds(start, n_samples=3000, scale=1.0):
    """Return a block of quiet noise with tones in it."""
    rng = np.random.default_rng(start)
    samples = rng.normal(0, 0.001 * scale, n_samples)
    tone = np.sin(np.arange(100) * 2.0)
    for first in range(500, n_samples - 100, 400):
        samples[first : first + 100] += 0.1 * scale * tone
    return Block(start, samples.astype(np.float32)[:, None])


class Exchanged(ScriptedSource):
    """Source that comes back at other rates."""

    def open(self):
        super().open()
        rate = RATE if self.opened % 2 else 2 * RATE
        self.info = StreamInfo("cage", rate)


LOST = Disconnected("pulled")
SCRIPTS = {
    "lost and back": [sounds(0), LOST, sounds(0, scale=2)],
    "lost three times": [sounds(0), LOST, sounds(0, 700), LOST, LOST, sounds(0)],
    "lost before the first sample": [LOST, sounds(0), LOST],
    "lost at the end": [sounds(0), Gap(3000, 3100, "overrun"), LOST],
    "a gap at first": [Gap(0, 300, "not a number"), sounds(300)],
    "gaps in a row": [
        sounds(0),
        Gap(3000, 5000, "overrun"),
        Gap(5000, 9000, "not a number"),
        sounds(9000),
        Gap(12000, 12001, "overrun"),
        sounds(12001),
    ],
    "joins": [
        sounds(0),
        Gap(3000, 3000, "next recording"),
        sounds(3000, scale=20),
        Gap(6000, 6000, "device slip"),
        sounds(6000, 900),
    ],
    "only gaps": [Gap(0, 500, "not a number"), Gap(500, 700, "overrun")],
}


@pytest.mark.parametrize("name", [*SCRIPTS, "another rate", "two other rates"])
@pytest.mark.usefixtures("quiet")
def test_a_replay_computes_the_events_of_the_live_run(tmp_path, name):
    if name in SCRIPTS:
        live = ScriptedSource(StreamInfo("cage", RATE), SCRIPTS[name], live=True)
    else:
        n_exchanges = 1 if name == "another rate" else 2
        items = [sounds(0), *[LOST, sounds(0)] * n_exchanges]
        live = Exchanged(StreamInfo("cage", RATE), items, live=True)
    recording = sink_recording.plugin.build(
        sink_recording.RecordingOptions(path=str(tmp_path)), CONTEXT
    )
    kinds = {"onset", "offset", "label", "gap"}
    first, second = CollectSink(kinds), CollectSink(kinds)
    more = {"detector": "energy", "models": ["namer"], "source_policy": "restart"}
    make_runner(live, first, recording, **more).run()
    replayed = source_recording.plugin.build(
        source_recording.RecordedOptions(path=str(tmp_path), block_length=77), CONTEXT
    )
    make_runner(replayed, second, **{**more, "source_policy": None}).run()
    assert outline(second) == outline(first)
    assert first.messages


def outline(sink):
    return [(m.kind, m.info, m.seq, m.at, m.event) for m in sink.messages]


def test_streams_of_another_run_are_not_replayed(tmp_path):
    def record(run, stream):
        sink = sink_recording.RecordingSink(tmp_path, run, keeps_files=True)
        sink.open()
        sink.write(Message(StreamInfo(stream, RATE), sounds(0), 0, 3000))
        sink.end_stream(stream)
        sink.close()

    record("one", "day 1")
    record("two", "day 2")
    record("three", "day 1")  # sets the files of run one aside
    for run, stream in (("one", "day 1"), ("two", "day 2"), ("three", "day 1")):
        options = source_recording.RecordedOptions(path=str(tmp_path), run=run)
        items = read(source_recording.plugin.build(options, CONTEXT))
        assert [i.stream for i in items if isinstance(i, StreamInfo)] == [stream]


HEAD = '{"stream": "a", "order": 0, "run": "r", "sample_rate": 1000}\n'
JUMP = '{"at": 100, "start": 100, "stop": 200, "reason": "lost"}\n'
DEEP = "[" * 50_000 + "]" * 50_000
STRANGE = {
    "number for the stream": HEAD.replace('"a"', "7"),
    "text for the rate": HEAD.replace("1000", '"fast"'),
    "no rate": HEAD.replace(', "sample_rate": 1000', ""),
    "rate of zero": HEAD.replace("1000", "0"),
    "absurd rate": HEAD.replace("1000", "1" + "0" * 5000),
    "a list": "[1, 2]\n",
    "levels": HEAD.replace('"a"', DEEP),
    "levels behind": HEAD + JUMP.replace("200", DEEP),
    "levels that are not asked for": HEAD.replace('"a"', f'"a", "more": {DEEP}'),
    "stop of 2^62": HEAD + JUMP.replace("200", str(2**62)),
    "stop of 5000 digits": HEAD + JUMP.replace("200", "9" * 5000),
    "fraction": HEAD + JUMP.replace("200", "200.5"),
    "NaN": HEAD + JUMP.replace("200", "NaN"),
    "negative": HEAD + JUMP.replace('"at": 100', '"at": -1'),
    "ends before it begins": HEAD + JUMP.replace("200", "50"),
    "overlapping": HEAD + JUMP + JUMP.replace("200", "300"),
    "unsorted": HEAD + JUMP + JUMP.replace('"at": 100', '"at": 90'),
    "a hole": HEAD + JUMP.replace('"start": 100', '"start": 120'),
    "more than the audio": HEAD + JUMP.replace("100", "4000").replace("200", "4100"),
    "another rate than the audio": HEAD.replace("1000", "2000"),
    "huge line": HEAD + JUMP.replace("lost", "x" * 100_000),
    "no line feed, huge": '{"stream": "' + "a" * 10_000_000,
    "not UTF-8": (HEAD + JUMP).encode().replace(b"lost", b"l\xf6st"),
    "cut off": HEAD + JUMP[:20],
    "blank line": HEAD + "\n",
    "empty": "",
    "escape sequences": HEAD.replace("1000", '"\u001b[31m"'),
}


@pytest.mark.parametrize("case", STRANGE)
def test_timelines_of_strangers_are_refused_in_one_sentence(tmp_path, case):
    text = STRANGE[case]
    data = text if isinstance(text, bytes) else text.encode()
    soundfile.write(tmp_path / "a.wav", np.zeros(3000), RATE, subtype="FLOAT")
    (tmp_path / "a.jsonl").write_bytes(data)
    options = source_recording.RecordedOptions(path=str(tmp_path))
    (problem,) = source_recording.plugin.check(options, CONTEXT)
    assert "a.jsonl'" in problem or "a.wav'" in problem
    assert problem.isprintable()
    assert len(problem) < 300 + len(str(tmp_path))
    with pytest.raises(AudioFileError, match=r"a\.(jsonl|wav)"):
        source_recording.plugin.build(options, CONTEXT).open()


def test_recordings_of_strangers_without_audio_or_twice_are_refused(tmp_path):
    options = source_recording.RecordedOptions(path=str(tmp_path))
    (tmp_path / "a.jsonl").write_text(HEAD + JUMP)
    (tmp_path / "._a.jsonl").write_bytes(b"\x00\x05")
    (problem,) = source_recording.plugin.check(options, CONTEXT)
    assert "a.wav' is missing" in problem
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (problem,) = source_recording.plugin.check(options, CONTEXT)
    assert "cannot be read as audio" in problem
    soundfile.write(tmp_path / "a.wav", np.zeros(3000), RATE, subtype="FLOAT")
    assert list(source_recording.plugin.check(options, CONTEXT)) == []
    for end in ("wav", "jsonl"):
        (tmp_path / f"b.{end}").write_bytes((tmp_path / f"a.{end}").read_bytes())
    (problem,) = source_recording.plugin.check(options, CONTEXT)
    assert "same recording" in problem
    (tmp_path / "b.jsonl").unlink()
    os.mkfifo(tmp_path / "b.jsonl")
    (problem,) = source_recording.plugin.check(options, CONTEXT)
    assert "it is no file" in problem
