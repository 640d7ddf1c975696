"""A folder that recorders fill: each recording once, in order, whatever happens."""

import json
import os
import resource
import shutil
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
from neurovocal.engine.timebase import ManualClock, SystemClock
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


def test_a_start_that_is_not_believed_is_said_once(tmp_path, caplog):
    for seed, name in enumerate(["a_20210513_190000", "b_20210513_200000", "song"]):
        write(tmp_path / f"{name}.wav", seed=seed)
    items = take(make(tmp_path))
    assert len(names(items)) == 3
    assert not any(isinstance(item, Anchor) for item in items)
    (record,) = caplog.records
    assert "when '" in record.getMessage()
    assert "of an unknown zone (give timezone)" in record.getMessage()


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
    assert detail.endswith("mono.wav' has 1 channel, there is no channel 2")


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
        sys.stdin.readline()
"""


def test_a_kill_at_any_moment_loses_none_and_doubles_at_most_the_one(tmp_path):
    n_files, n_samples = 12, 20_000
    for number in range(n_files):
        write(tmp_path / f"{number}.wav", n_samples)
    runs = []
    for lines in (4, 9, 1, 12):  # killed when it has read so many blocks
        process = subprocess.Popen(
            [sys.executable, "-c", READ, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        heard = []
        while len(heard) < lines:
            heard.append(process.stdout.readline().split())
            if len(heard) < lines:
                process.stdin.write("\n")
        process.kill()
        process.communicate()
        runs.append([name for name, stop in heard if int(stop) == n_samples])
    runs.append(names(take(make(tmp_path))))
    whole = [name for run in runs for name in run]
    assert set(whole) == {f"{number}.wav" for number in range(n_files)}
    assert len(whole) <= n_files + 4  # each kill repeats at most one
    assert all(len(run) == len(set(run)) for run in runs)


@settings(deadline=None, max_examples=30)
@given(torn=st.integers(0, 700))
def test_a_half_written_state_is_read_as_far_as_it_is_whole(tmp_path_factory, torn):
    folder = tmp_path_factory.mktemp("card")
    for name in ("a", "b"):
        write(folder / f"{name}.wav", 80)
    take(make(folder))
    state = folder / STATE
    whole = state.read_bytes()
    assert verdicts(whole) == {"a.wav": "taken", "b.wav": "taken"}
    state.write_bytes(whole[: len(whole) - torn])
    left = whole[: whole.rfind(b"\n", 0, len(whole) - torn) + 1]
    items = take(make(folder))
    expected = [n for n in ("a.wav", "b.wav") if verdicts(left).get(n) != "taken"]
    assert names(items) == expected
    assert verdicts(state.read_bytes()) == {"a.wav": "taken", "b.wav": "taken"}


def verdicts(state):
    """What the lines of a state say last of each recording."""
    entries = map(json.loads, state.splitlines())
    return {entry["file"]: entry["verdict"] for entry in entries}


def test_a_recording_that_goes_on_after_it_was_finished_is_heard_again(tmp_path):
    path = write(tmp_path / "x.wav")
    longer = write(tmp_path / ".longer.wav", 1600).read_bytes()
    source = make(tmp_path, follow=True, confirm_s=5)
    source.open()
    items = []
    for _ in range(60):
        item = source.read(0.5)
        items += [item] if item is not None else []
        if isinstance(item, Block):
            path.write_bytes(longer)
    source.close()
    sentence, again, over = [detail for _, detail in told(items)]
    assert "is another recording than the one of this name before" in again
    assert "has changed after it was finished: it is heard again" in sentence
    assert "can be used again" in over
    assert names(items) == ["x.wav", "x.wav"]
    assert [len(item.samples) for item in items if isinstance(item, Block)] == [
        800,
        1600,
    ]
    assert take(make(tmp_path)) == []


def test_a_recording_is_known_by_what_is_in_it(tmp_path):
    """Cards come back with other times, recorders use names again."""
    path = write(tmp_path / "REC1.wav", 80_000)
    assert names(take(make(tmp_path))) == ["REC1.wav"]
    os.utime(path, (1, 1))  # the same, on a card that was copied or is in summer time
    assert take(make(tmp_path)) == []
    path.rename(tmp_path / "archived.wav")
    assert take(make(tmp_path)) == []
    shutil.copy2(tmp_path / "archived.wav", tmp_path / "copy.wav")
    assert names(take(make(tmp_path))) == ["copy.wav"]
    write(path, 80_000, seed=1)  # as long as the one before
    items = take(make(tmp_path))
    assert names(items) == ["REC1.wav"]
    assert told(items) == [
        (
            "healthy",
            f"'{path}' is another recording than the one of this name before",
        )
    ]
    write(path, 4000, seed=2)
    assert names(take(make(tmp_path))) == ["REC1.wav"]
    assert take(make(tmp_path)) == []


def test_a_state_of_an_earlier_version_is_understood(tmp_path):
    path = write(tmp_path / "a.wav")
    stat = path.stat()
    entry = {"file": "a.wav", "size": stat.st_size, "mtime_ns": 1, "verdict": "taken"}
    (tmp_path / STATE).write_text(json.dumps(entry) + "\n")
    assert take(make(tmp_path)) == []


def test_one_that_a_kill_cut_short_is_told_by_the_next_run(tmp_path):
    path = write(tmp_path / "a.wav", 20_000)
    first = make(tmp_path)
    first.open()
    while not isinstance(first.read(0.5), Block):
        pass
    os.close(first._taken._fd)  # all that a kill leaves: the file, and no lock
    context = BuildContext(ManualClock(), "run-2")
    second = plugin.build(plugin.options(path=str(tmp_path), follow=False), context)
    items = take(second)
    sentence = f"'{path}' is heard again, whole: run run did not get to its end"
    assert told(items) == [("recovering", sentence)]
    assert sum(len(i.samples) for i in items if isinstance(i, Block)) == 20_000
    assert take(make(tmp_path)) == []


def test_what_cannot_be_read_holds_nobody_up_and_is_heard_when_it_can(tmp_path):
    bad = tmp_path / "a.wav"
    bad.symlink_to(bad)  # no user may read this, not even root
    write(tmp_path / "b.wav")
    ending = make(tmp_path)
    assert names(take(ending)) == ["b.wav"]
    assert len(ending.failures) == 1
    assert f"'{bad}' cannot be read" in ending.failures[0]
    source = make(tmp_path, follow=True)
    source.open()
    items = [source.read(0.5) for _ in range(200)]
    bad.unlink()
    write(bad)
    items += [source.read(0.5) for _ in range(200)]
    source.close()
    assert names(items) == ["a.wav"]
    (state, sentence), over = told(items)
    assert state == "lossy"
    assert sentence.startswith(f"'{bad}' cannot be read")
    assert over == ("healthy", f"no longer: {sentence}")


def test_links_in_a_circle_are_followed_once(tmp_path):
    (tmp_path / "day").mkdir()
    write(tmp_path / "day" / "a.wav")
    (tmp_path / "day" / "up").symlink_to(tmp_path)
    assert names(take(make(tmp_path, recursive=True))) == ["day/a.wav"]


def test_cards_are_changed_while_it_runs(tmp_path):
    """Each card has its own state; none is left out, and none is heard for ever.

    The first is pulled before it could be noted on it that it was heard to the end:
    it is heard once more.
    """
    slot, cards = tmp_path / "slot", [tmp_path / "one", tmp_path / "two"]
    for seed, card in enumerate(cards):
        card.mkdir()
        write(card / "REC1.wav", 9000, seed=seed)
        write(card / "REC2.wav", 9000, seed=seed + 10)
    source = make(slot, follow=True)
    cards[0].rename(slot)
    source.open()
    heard = []
    for turn in range(6):
        heard.append([])
        for _ in range(60):
            item = source.read(0.5)
            if isinstance(item, Block) and item.start == 0:
                heard[-1].append(item.samples[0, 0])
            if turn == 0 and len(heard[0]) == 2:
                break  # pulled before anything of it was confirmed
        slot.rename(cards[turn % 2])
        assert [source.read(0.5) for _ in range(5)]
        cards[(turn + 1) % 2].rename(slot)
    source.close()
    assert [len(part) for part in heard] == [2, 2, 2, 0, 0, 0]
    assert len({value for part in heard for value in part}) == 4
    for card in (slot, cards[1]):
        assert take(make(card)) == []


def test_a_disk_that_takes_no_more_keeps_nothing_from_being_heard(tmp_path):
    folder, state = tmp_path / "share", tmp_path / "taken.jsonl"
    folder.mkdir()
    for number in range(6):
        write(folder / f"{number}.wav")
    source = make(folder, follow=True, state=str(state), confirm_s=0)
    source.open()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, most))  # in the midst of a line
    try:
        items = [source.read(0.5) for _ in range(200)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert len(names(items)) == 6
    ((health, sentence),) = told(items)
    assert health == "lossy"
    assert sentence == f"state '{state}' cannot be written: File too large"
    assert len(state.read_bytes()) <= 500
    items = [source.read(0.5) for _ in range(20)]
    assert told(items) == [("healthy", f"no longer: {sentence}")]
    source.close()
    assert set(verdicts(state.read_bytes()).values()) == {"taken"}
    assert take(make(folder, state=str(state))) == []


def test_thousands_are_judged_in_turns_and_the_earliest_goes_first(tmp_path):
    clock = SystemClock()
    first = write(tmp_path / "20210513_000000.wav", 80)
    expected = [first.name]
    for number in range(1, 2000):
        hour, minute, second = number // 3600, number // 60 % 60, number % 60
        expected.append(f"20210513_{hour:02}{minute:02}{second:02}.wav")
        os.link(first, tmp_path / expected[-1])
    source = make(tmp_path, clock, settle_s=0, poll_s=0.001, timezone="UTC")
    source.open()
    heard = []
    while len(heard) < 20:
        item = source.read(0.0)
        heard += [item.stream] if isinstance(item, StreamInfo) else []
    source.close()
    assert heard == expected[:20]
