"""A folder that recorders fill: each recording once, in order, whatever happens."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.errors import ConfigError, EndOfStream
from neurovocal.engine.registry import BuildContext
from neurovocal.engine.timebase import ManualClock
from neurovocal.engine.types import Anchor, Block, Health, StreamInfo
from neurovocal.plugins.source_folder import STATE, plugin

RATE = 8000


def make(folder, clock=None, **options):
    options = {"path": str(folder), "follow": False, **options}
    context = BuildContext(clock or ManualClock(), "run")
    return plugin.build(plugin.options(**options), context)


def write(path, n_samples=800, seed=0, channels=1):
    values = np.random.default_rng(seed).uniform(-1, 1, (n_samples, channels))
    soundfile.write(path, values, RATE, subtype="PCM_16")
    return path


def take(source, limit=100_000):
    """All items until the end, or until `limit` reads have brought nothing."""
    source.open()
    items = []
    while limit:
        try:
            item = source.read(0.5)
        except EndOfStream:
            break
        if item is None:
            limit -= 1
        else:
            items.append(item)
    source.close()
    return items


def names(items):
    return [item.stream for item in items if isinstance(item, StreamInfo)]


def told(items):
    return [(item.state, item.detail) for item in items if isinstance(item, Health)]


def test_each_is_taken_once_in_the_order_of_time(tmp_path):
    write(tmp_path / "b_20210513_190000.wav")
    write(tmp_path / "a_20210513_200000.wav")
    write(tmp_path / "c_20210513T183000Z.wav", seed=7)
    (tmp_path / "notes.txt").write_text("no recording")
    (tmp_path / ".a_20210513_170000.wav").write_bytes(b"not finished")
    source = make(tmp_path, timezone="UTC")
    items = take(source)
    assert names(items) == [
        "c_20210513T183000Z.wav",
        "b_20210513_190000.wav",
        "a_20210513_200000.wav",
    ]
    began = datetime(2021, 5, 13, 18, 30, tzinfo=UTC).timestamp()
    assert items[1] == Anchor(0, int(began) * 10**9)
    expected, _ = soundfile.read(tmp_path / items[0].stream, dtype="float32")
    np.testing.assert_array_equal(items[2].samples[:, 0], expected)
    assert take(source) == []  # opened again, or by another run
    write(tmp_path / "d.wav")
    assert names(take(make(tmp_path))) == ["d.wav"]


def test_a_growing_file_waits_and_holds_nobody_up(tmp_path):
    clock = ManualClock()
    done = write(tmp_path / "done.wav")
    whole = done.read_bytes()
    growing = tmp_path / "growing.wav"
    growing.write_bytes(whole[:500])
    source = make(tmp_path, clock, follow=True, settle_s=5, poll_s=1)
    source.open()
    heard = []
    for second in range(1, 30):
        if second <= 10:  # the header promises all of it from the first byte on
            with growing.open("ab") as file:
                file.write(whole[500 + (second - 1) * 100 : 500 + second * 100])
        if second == 10:
            growing.write_bytes(whole)
        while (item := source.read(0)) is not None:
            heard += [(second, item.stream)] if isinstance(item, StreamInfo) else []
        clock.advance(1)
    source.close()
    assert [name for _, name in heard] == ["done.wav", "growing.wav"]
    assert heard[0][0] == 6
    assert heard[1][0] in (15, 16)


def test_what_cannot_be_used_is_set_aside_and_told_not_deleted(tmp_path):
    folder, aside = tmp_path / "card", tmp_path / "aside"
    folder.mkdir()
    whole = write(folder / "whole.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:700])
    (folder / "junk.wav").write_bytes(b"no sound in here")
    (folder / "empty.flac").touch()
    source = make(folder, set_aside=str(aside), channels=[1])
    items = take(source)
    assert names(items) == ["whole.wav"]
    sentences = [detail for state, detail in told(items) if state == "lossy"]
    assert len(sentences) == len(source.failures) == 3
    assert all(sentence.startswith("set aside: '") for sentence in sentences)
    assert sorted(os.listdir(aside)) == ["cut.wav", "empty.flac", "junk.wav"]
    assert (aside / "cut.wav").read_bytes() == whole[:700]
    assert take(make(folder)) == []


def test_one_that_was_left_in_place_is_tried_again_when_it_changes(tmp_path):
    path = write(tmp_path / "x.wav")
    whole = path.read_bytes()
    path.write_bytes(whole[:700])
    assert names(take(make(tmp_path))) == []
    assert take(make(tmp_path)) == []  # known, and no word more about it
    path.write_bytes(whole)
    assert names(take(make(tmp_path))) == ["x.wav"]
    path.touch()
    assert names(take(make(tmp_path))) == []


def test_too_few_channels_are_a_reason(tmp_path):
    write(tmp_path / "mono.wav")
    items = take(make(tmp_path, channels=[2]))
    (state, detail), *_ = told(items)
    assert state == "lossy"
    assert detail.endswith("mono.wav' has 1 channels, there is no 2")


def test_a_folder_that_goes_away_and_comes_back(tmp_path):
    folder = tmp_path / "card"
    folder.mkdir()
    write(folder / "a.wav")
    state = tmp_path / "taken"
    source = make(folder, follow=True, state=str(state))
    source.open()
    items = []

    def listen(reads):
        for _ in range(reads):
            if (item := source.read(0.5)) is not None:
                items.append(item)

    listen(40)
    folder.rename(tmp_path / "pulled")
    listen(10)
    (tmp_path / "pulled").rename(folder)
    write(folder / "b.wav")
    listen(40)
    source.close()
    assert names(items) == ["a.wav", "b.wav"]
    assert [state for state, _ in told(items)] == ["lossy", "healthy"]


def test_a_second_engine_is_refused_and_so_is_a_foreign_state(tmp_path):
    first = make(tmp_path, follow=True)
    first.open()
    with pytest.raises(ConfigError, match="in use: another engine takes these"):
        make(tmp_path).open()
    first.close()
    state = tmp_path / "x.jsonl"
    state.write_text('{"something": "else"}\n')
    with pytest.raises(ConfigError, match="is not the state of a folder source"):
        make(tmp_path, state=str(state)).open()
    missing = make(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="does not exist"):
        missing.open()


READ = """
import sys
from neurovocal.engine.registry import BuildContext
from neurovocal.engine.timebase import ManualClock
from neurovocal.engine.types import Block, StreamInfo
from neurovocal.plugins.source_folder import plugin
options = plugin.options(path=sys.argv[1], confirm_s=0, settle_s=0, follow=False)
source = plugin.build(options, BuildContext(ManualClock(), "run"))
source.open()
while True:
    item = source.read(0.5)
    if isinstance(item, StreamInfo):
        stream = item.stream
    elif isinstance(item, Block):
        print(stream, item.stop, flush=True)
"""


def test_a_kill_at_any_moment_loses_none_and_doubles_at_most_the_one(tmp_path):
    n_files, n_samples = 12, 20_000
    for number in range(n_files):
        write(tmp_path / f"{number}.wav", n_samples)
    runs = []
    for lines in (4, 9, 1, 12):  # killed when it has read so many blocks
        process = subprocess.Popen(
            [sys.executable, "-c", READ, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            heard = [process.stdout.readline().split() for _ in range(lines)]
            process.kill()
            heard += [line.split() for line in process.stdout]
        runs.append([name for name, stop in heard if int(stop) == n_samples])
    runs.append(names(take(make(tmp_path))))
    whole = [name for run in runs for name in run]
    assert set(whole) == {f"{number}.wav" for number in range(n_files)}
    assert len(whole) <= n_files + 4  # each kill repeats at most one
    assert all(len(run) == len(set(run)) for run in runs)


@settings(deadline=None, max_examples=30)
@given(torn=st.integers(0, 200))
def test_a_half_written_state_is_read_as_far_as_it_is_whole(tmp_path_factory, torn):
    folder = tmp_path_factory.mktemp("card")
    for name in ("a", "b"):
        write(folder / f"{name}.wav", 80)
    take(make(folder))
    state = folder / STATE
    whole = state.read_bytes()
    assert [json.loads(line)["file"] for line in whole.splitlines()] == [
        "a.wav",
        "b.wav",
    ]
    state.write_bytes(whole[: len(whole) - torn])
    again = names(take(make(folder)))
    lost = whole[: len(whole) - torn].count(b"\n")
    assert again == ["a.wav", "b.wav"][lost:]
    assert len(state.read_bytes().splitlines()) == 2


def test_a_recording_that_goes_on_after_it_was_taken_is_told(tmp_path):
    path = write(tmp_path / "x.wav")
    clock = ManualClock()
    source = make(tmp_path, clock, follow=True, confirm_s=5)
    source.open()
    items = []
    for _ in range(60):
        item = source.read(0.5)
        items += [item] if item is not None else []
        if isinstance(item, Block):
            with path.open("ab") as file:
                file.write(bytes(100))
    source.close()
    (sentence,) = [detail for _, detail in told(items)]
    assert "has changed after it was finished" in sentence
    assert names(items) == ["x.wav"]
