"""Folder source: each recording is read once, in order, despite failures."""

import os
import resource
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile
from stages.folder_source import (
    health_of,
    make,
    names,
    read_all,
    read_confirmed,
    statuses,
    write,
)

from neurovocal.engine.contracts.clock import ManualClock, SystemClock
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Gap,
    Health,
    StreamEnd,
    StreamInfo,
)


def test_each_recording_is_read_once_in_order_of_time(tmp_path):
    write(tmp_path / "b_20210513_190000.wav")
    write(tmp_path / "a_20210513_200000.wav")
    write(tmp_path / "c_20210513T183000Z.wav", seed=7)
    (tmp_path / "notes.txt").write_text("no recording")
    (tmp_path / ".a_20210513_170000.wav").write_bytes(b"not finished")
    source = make(tmp_path, timezone="UTC")
    items = read_all(source)
    assert names(items) == [
        "c_20210513T183000Z.wav",
        "b_20210513_190000.wav",
        "a_20210513_200000.wav",
    ]
    began = datetime(2021, 5, 13, 18, 30, tzinfo=UTC).timestamp()
    assert items[1] == Anchor(0, int(began) * 10**9)
    expected, _ = soundfile.read(tmp_path / items[0].stream, dtype="float32")
    np.testing.assert_array_equal(items[2].samples[:, 0], expected)
    assert read_all(source) == []  # opened again, or by another run
    write(tmp_path / "d.wav")
    assert names(read_all(make(tmp_path))) == ["d.wav"]


def test_an_unused_start_time_is_logged_once(tmp_path, caplog):
    for seed, name in enumerate(["a_20210513_190000", "b_20210513_200000", "song"]):
        write(tmp_path / f"{name}.wav", seed=seed)
    items = read_all(make(tmp_path))
    assert len(names(items)) == 3
    assert not any(isinstance(item, Anchor) for item in items)
    (record,) = caplog.records
    assert "when '" in record.getMessage()
    assert "of an unknown zone (give timezone)" in record.getMessage()


def test_a_growing_file_does_not_delay_other_files(tmp_path):
    clock = ManualClock()
    done = write(tmp_path / "done.wav")
    whole = done.read_bytes()
    growing = tmp_path / "growing.wav"
    growing.write_bytes(whole[:500])
    source = make(tmp_path, clock, follow=True, settle_s=5, poll_s=1)
    source.open()
    streams = []
    for second in range(1, 30):
        if second <= 10:  # the header promises all of it from the first byte on
            with growing.open("ab") as file:
                file.write(whole[500 + (second - 1) * 100 : 500 + second * 100])
        if second == 10:
            growing.write_bytes(whole)
        while (item := source.read(0)) is not None:
            streams += [(second, item.stream)] if isinstance(item, StreamInfo) else []
        clock.advance(1)
    source.close()
    assert [name for _, name in streams] == ["done.wav", "growing.wav"]
    assert streams[0][0] == 6
    assert streams[1][0] in (15, 16)


def test_an_unusable_file_is_set_aside_and_reported(tmp_path):
    folder, aside = tmp_path / "card", tmp_path / "aside"
    folder.mkdir()
    whole = write(folder / "whole.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:40])
    (folder / "junk.wav").write_bytes(b"no sound in here")
    (folder / "empty.flac").touch()
    source = make(folder, set_aside=str(aside), channels=[1])
    items = read_all(source)
    assert names(items) == ["whole.wav"]
    sentences = [detail for state, detail in health_of(items) if state == "lossy"]
    assert len(sentences) == len(source.failures) == 3
    assert all(sentence.startswith("set aside: '") for sentence in sentences)
    assert sorted(os.listdir(aside)) == ["cut.wav", "empty.flac", "junk.wav"]
    assert (aside / "cut.wav").read_bytes() == whole[:40]
    assert read_all(make(folder)) == []


def test_an_unusable_file_is_read_again_after_a_change(tmp_path):
    path = write(tmp_path / "x.wav")
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert names(read_all(make(tmp_path))) == []
    assert read_all(make(tmp_path)) == []  # known, and no word more about it
    path.write_bytes(whole)
    assert names(read_all(make(tmp_path))) == ["x.wav"]
    path.touch()
    assert names(read_all(make(tmp_path))) == []


def test_a_recording_that_was_cut_is_read_and_reported_in_its_own_stream(tmp_path):
    for second, name in enumerate(("a.wav", "b.wav", "c.wav")):
        path = write(tmp_path / name)
        if name == "b.wav":
            path.write_bytes(path.read_bytes()[:-700])
        os.utime(path, (second, second))
    items = read_all(source := make(tmp_path))
    assert names(items) == ["a.wav", "c.wav", "b.wav"]  # it might still have grown
    stream, found = "", {}
    for item in items:
        if isinstance(item, StreamInfo):
            stream = item.stream
        elif isinstance(item, Health):
            found[stream] = item.detail
    assert "b.wav' is cut off after" in found.pop("b.wav")
    assert not found
    assert len(source.failures) == 1


def test_a_recording_with_too_few_channels_is_set_aside(tmp_path):
    write(tmp_path / "mono.wav")
    items = read_all(make(tmp_path, channels=[2]))
    (state, detail), *_ = health_of(items)
    assert state == "lossy"
    assert detail.endswith("mono.wav' has 1 channel, there is no channel 2")


def test_a_folder_that_is_unmounted_and_mounted_again(tmp_path):
    folder = tmp_path / "card"
    folder.mkdir()
    write(folder / "a.wav")
    state = tmp_path / "taken"
    source = make(folder, follow=True, state=str(state))
    source.open()
    items = []

    def listen(reads):
        for _ in range(reads):
            if (item := read_confirmed(source)) is not None:
                items.append(item)

    listen(40)
    folder.rename(tmp_path / "pulled")
    listen(10)
    (tmp_path / "pulled").rename(folder)
    write(folder / "b.wav")
    listen(40)
    source.close()
    assert names(items) == ["a.wav", "b.wav"]
    assert [state for state, _ in health_of(items)] == ["lossy", "healthy"]


def test_an_unreadable_file_delays_no_other_and_is_read_later(tmp_path):
    bad = tmp_path / "a.wav"
    bad.symlink_to(bad)  # no user may read this, not even root
    write(tmp_path / "b.wav")
    ending = make(tmp_path)
    assert names(read_all(ending)) == ["b.wav"]
    assert len(ending.failures) == 1
    assert f"'{bad}' cannot be read" in ending.failures[0]
    source = make(tmp_path, follow=True)
    source.open()
    items = [read_confirmed(source) for _ in range(200)]
    bad.unlink()
    write(bad)
    items += [read_confirmed(source) for _ in range(200)]
    source.close()
    assert names(items) == ["a.wav"]
    (state, sentence), over = health_of(items)
    assert state == "lossy"
    assert sentence.startswith(f"'{bad}' cannot be read")
    assert over == ("healthy", f"no longer: {sentence}")


def test_circular_links_are_followed_once(tmp_path):
    (tmp_path / "day").mkdir()
    write(tmp_path / "day" / "a.wav")
    (tmp_path / "day" / "up").symlink_to(tmp_path)
    assert names(read_all(make(tmp_path, recursive=True))) == ["day/a.wav"]


def test_memory_cards_are_exchanged_during_the_run(tmp_path):
    """Each card has its own state: all recordings are read, and not without end.

    The first card is removed before its state file says that it was read: it is read
    once more.
    """
    slot, cards = tmp_path / "slot", [tmp_path / "one", tmp_path / "two"]
    for seed, card in enumerate(cards):
        card.mkdir()
        write(card / "REC1.wav", 9000, seed=seed)
        write(card / "REC2.wav", 9000, seed=seed + 10)
    source = make(slot, follow=True)
    cards[0].rename(slot)
    source.open()
    first_samples = []
    for exchange in range(6):
        first_samples.append([])
        for _ in range(60):
            item = read_confirmed(source)
            if isinstance(item, Block) and item.start == 0:
                first_samples[-1].append(item.samples[0, 0])
            if exchange == 0 and len(first_samples[0]) == 2:
                break  # removed before a recording was confirmed
        slot.rename(cards[exchange % 2])
        assert [read_confirmed(source) for _ in range(5)]
        cards[(exchange + 1) % 2].rename(slot)
    source.close()
    assert [len(part) for part in first_samples] == [2, 2, 2, 0, 0, 0]
    assert len({value for part in first_samples for value in part}) == 4
    for card in (slot, cards[1]):
        assert read_all(make(card)) == []


def test_recordings_are_read_while_the_disk_of_the_state_is_full(tmp_path):
    folder, state = tmp_path / "share", tmp_path / "taken.jsonl"
    folder.mkdir()
    for number in range(6):
        write(folder / f"{number}.wav")
    source = make(folder, follow=True, state=str(state), confirm_s=0)
    source.open()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, most))  # in the midst of a line
    try:
        items = [read_confirmed(source) for _ in range(200)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert len(names(items)) == 6
    ((health, sentence),) = health_of(items)
    assert health == "lossy"
    assert sentence == f"state '{state}' cannot be written: File too large"
    assert len(state.read_bytes()) <= 500
    items = [read_confirmed(source) for _ in range(20)]
    assert health_of(items) == [("healthy", f"no longer: {sentence}")]
    source.close()
    assert set(statuses(state.read_bytes()).values()) == {"taken"}
    assert read_all(make(folder, state=str(state))) == []


def test_thousands_of_files_are_inspected_over_several_scans(tmp_path):
    clock = SystemClock()
    first = write(tmp_path / "20210513_000000.wav", 80)
    expected = [first.name]
    for number in range(1, 2000):
        hour, minute, second = number // 3600, number // 60 % 60, number % 60
        expected.append(f"20210513_{hour:02}{minute:02}{second:02}.wav")
        os.link(first, tmp_path / expected[-1])
    source = make(tmp_path, clock, settle_s=0, poll_s=0.01, timezone="UTC")
    source.open()
    streams = []
    while len(streams) < 20:
        item = source.read(0.0)
        streams += [item.stream] if isinstance(item, StreamInfo) else []
    source.close()
    assert streams == expected[:20]


def test_a_few_samples_that_are_no_numbers_are_interpolated_and_told(tmp_path):
    path = write(tmp_path / "x.wav")
    samples, rate = soundfile.read(path)
    samples[20:25] = np.nan
    soundfile.write(path, samples, rate, subtype="FLOAT")
    items = read_all(make(tmp_path))
    heard = np.concatenate([i.samples for i in items if isinstance(i, Block)])
    assert heard.shape == (len(samples), 1)
    assert not any(isinstance(item, Gap) for item in items)
    (told,) = health_of(items)
    state, detail = told
    assert state == "healthy"
    assert detail.startswith(f"'{path}': 5 samples are no numbers, the first at ")


@pytest.mark.parametrize("kept", [False, None])
def test_a_recording_that_a_sink_did_not_keep_is_told_when_the_source_closes(
    tmp_path, caplog, kept
):
    # The sinks are closed, and say what they kept, after the last read.
    write(tmp_path / "a.wav")
    source = make(tmp_path)
    source.open()
    end = None
    while end is None:
        item = source.read(0.5)
        end = item if isinstance(item, StreamEnd) else None
    if kept is not None:
        source.confirm(end, kept)
    source.close()
    told = [record.getMessage() for record in caplog.records]
    path = tmp_path / "a.wav"
    assert told == [
        f"a sink has lost events of '{path}': it is heard again at the next start"
    ]
