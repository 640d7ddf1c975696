"""Clips: their samples, their sidecars and the selection of segments."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.clip_sinks import (
    EPOCH,
    RATE,
    blocks_of,
    clips,
    give,
    known_at,
    message,
    play,
    segment,
    sink,
)

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import (
    Block,
    Event,
    Gap,
    StreamInfo,
    Surprise,
)
from neurovocal.engine.testing import check_sink


def ramp(seconds: float) -> np.ndarray[Any, Any]:
    """Return samples with their position as value."""
    count = round(seconds * RATE)
    return (np.arange(count, dtype=np.float32) / 2**16)[:, None]


def test_clip_has_the_samples_and_a_sidecar_that_describes_them(tmp_path: Path) -> None:
    target = sink(tmp_path, format="wav")
    target.open()
    samples = ramp(4)
    surprise = Surprise(0, 100, np.arange(13, dtype=np.float32))
    play(target, samples, [surprise, *segment(0, 1000, 1300)])
    [(told, audio, path)] = clips(tmp_path)
    target.close()
    assert (told["start"], told["stop"]) == (900, 1500)
    assert np.array_equal(audio, samples[900:1500, 0])
    assert told["segments"] == [
        {
            "segment": 0,
            "onset": 1000,
            "offset": 1300,
            "onset_s": 0.1,
            "offset_s": 0.4,
            "truncated": False,
            "labels": [
                {"unit": "a", "posterior": 0.9, "status": "final", "model": "m"}
            ],
            "surprise": {"mean": 11.0, "max": 12.0},
        }
    ]
    assert told["complete"]
    assert told["missing"] == []
    assert told["utc"] == "2023-11-14T22:13:20.900000Z"
    assert told["run"] == "run1"
    day = tmp_path / "clips" / "2023-11-14" / "cage 1"
    assert path == day / "20231114T221320.900000Z_cage 1_s000000000900.json"
    assert len(list(day.iterdir())) == 2  # nothing is left beside the pair


def test_flac_keeps_24_bits(tmp_path: Path) -> None:
    target = sink(tmp_path)
    target.open()
    samples = ramp(3)
    play(target, samples, segment(0, 1000, 1300))
    [(_, audio, path)] = clips(tmp_path)
    assert path.with_suffix(".flac").exists()
    assert np.abs(audio - samples[900:1500, 0]).max() <= 2**-23


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=6),
    delay=st.sampled_from([0, 700]),
    what=st.sampled_from(["segment", "bout"]),
)
def test_clips_do_not_depend_on_block_length(
    tmp_path_factory: Any, cuts: list[int], delay: int, what: str
) -> None:
    samples = ramp(9)
    events = [
        *segment(0, 500, 700),
        *segment(1, 1200, 1900, unit="b"),
        Gap(4000, 4300, "overrun"),
        *segment(2, 3800, 4000),
        *segment(3, 4350, 7400),
    ]
    written = []
    for cut, late in (((50,), 0), (cuts, delay)):
        folder = tmp_path_factory.mktemp("clips")
        target = sink(folder, what=what)
        target.open()
        play(target, samples, events, cut, delay=late)
        target.close()
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        written.append([(p.relative_to(folder), p.read_bytes()) for p in files])
    assert written[0] == written[1]
    assert written[0]


def test_gap_inside_a_clip_is_silence_and_listed_as_missing(tmp_path: Path) -> None:
    target = sink(tmp_path)
    target.open()
    play(target, ramp(4), [Gap(1350, 1420, "overrun"), *segment(0, 1000, 1300)])
    [(told, audio, _)] = clips(tmp_path)
    assert told["missing"] == [{"start": 1350, "stop": 1420, "reason": "overrun"}]
    assert not told["complete"]
    assert not audio[450:520].any()
    assert audio[520:].all()
    assert target.stats()["incomplete"] == 1


def test_dropped_blocks_are_listed_as_lost(tmp_path: Path) -> None:
    target = sink(tmp_path)
    target.open()
    events = segment(0, 1000, 1300)
    for block in blocks_of(ramp(4), [100], []):
        if block.start not in (1100, 1200):
            target.write(message(block, block.stop, True))
        for event in events:
            if block.start < known_at(event) <= block.stop:
                give(target, event, True)
    [(told, _, _)] = clips(tmp_path)
    assert told["missing"] == [
        {"start": 1100, "stop": 1300, "reason": "lost on the way to the sink"}
    ]


def test_bouts_join_segments_up_to_longest_s(tmp_path: Path) -> None:
    target = sink(tmp_path, what="bout", bout_gap_s=0.3)
    target.open()
    marks = [(500, 700), (900, 1100), (1800, 2000), (2200, 3500), (3700, 4500)]
    events = [e for i, m in enumerate(marks) for e in segment(i, *m)]
    play(target, ramp(8), events)
    found = [[s["segment"] for s in told["segments"]] for told, _, _ in clips(tmp_path)]
    assert found == [[0, 1], [2, 3], [4]]


def test_end_of_a_long_segment_is_kept(tmp_path: Path) -> None:
    target = sink(tmp_path)
    target.open()
    play(target, ramp(12), segment(0, 1000, 9000))
    [(told, audio, _)] = clips(tmp_path)
    assert told["cut"]
    assert (told["start"], told["stop"]) == (6900, 9200)
    assert audio.all()


def segments_selected(folder: Path, **select: Any) -> list[int]:
    """Return the numbers of the segments, of eight, that pass the rules."""
    folder.mkdir()
    target = sink(folder, select=select)
    target.open()
    events: list[Event] = []
    for i in range(8):
        unit = "ab"[i % 2]
        events += segment(
            i,
            1000 * i + 300,
            1000 * i + 500,
            unit=unit,
            posterior=0.3 + 0.1 * (i // 2),
            status="provisional" if i == 7 else "final",
        )
    values = np.repeat(np.arange(8, dtype=np.float32), 10)
    values[23] = 20.0
    # As a lane does it: surprise up to the offset, and then the offset.
    heard = [Surprise(10 * i, 100, values[10 * i : 10 * i + 5]) for i in range(8)]
    events = [*heard, *events]
    play(target, ramp(12), events)
    target.close()
    return [told["segments"][0]["segment"] for told, _, _ in clips(folder)]


def test_segment_must_pass_all_selection_rules(tmp_path: Path) -> None:
    def take(**select: Any) -> list[int]:
        return segments_selected(
            tmp_path / str(len(list(tmp_path.iterdir()))), **select
        )

    assert take() == list(range(8))
    assert take(units=["b"]) == [1, 3, 5]  # 7 has no final label
    assert take(units=["b"], status="any") == [1, 3, 5, 7]
    assert take(min_posterior=0.45) == [4, 5, 6]
    assert take(units=["a"], min_posterior=0.45) == [4, 6]
    assert take(every=3) == [0, 3, 6]
    assert take(units=["b"], every=2) == [1, 5]
    assert take(min_surprise=5) == [2, 5, 6, 7]
    assert take(min_surprise=15, surprise="max") == [2]


def test_clip_names_without_utc_contain_the_run(tmp_path: Path) -> None:
    target = sink(tmp_path)
    target.open()
    play(target, ramp(4), segment(0, 1000, 1300), timed=False)
    [(told, _, path)] = clips(tmp_path)
    assert told["utc"] is None
    assert path.parent == tmp_path / "clips" / "undated" / "cage 1"
    assert path.name == "run1_cage 1_s000000000900.json"


def test_clip_begins_at_the_join_of_two_recordings(tmp_path: Path) -> None:
    """Its pre-roll would reach into another recording, of another time."""
    target = sink(tmp_path)
    target.open()
    samples, join = ramp(4), Gap(1000, 1000, "next recording")
    assert join.is_join
    pause_ns = 7 * NS
    for event in (Block(0, samples[:1000]), join, Block(1000, samples[1000:])):
        target.write(message(event, 4000, timed=True))
    for event in segment(0, 1050, 1300):
        made = message(event, 1400, timed=True)
        target.write(replace(made, utc_ns=made.utc_ns + pause_ns))
    target.close()
    [(told, audio, _)] = clips(tmp_path)
    assert (told["start"], told["stop"]) == (1000, 1500)
    assert np.array_equal(audio, samples[1000:1500, 0])
    assert told["utc_ns"] == EPOCH + NS + pause_ns


@pytest.mark.parametrize("stem", ["\u65e5" * 28, "\u0437" * 100, "x" * 250])
def test_clips_of_recordings_with_long_names_are_written(
    tmp_path: Path, stem: str
) -> None:
    target = sink(tmp_path)
    target.open()
    info = StreamInfo(f"{stem}.wav", RATE)
    for event in (Block(0, ramp(4)), *segment(0, 1000, 1300)):
        made = message(event, 4000, timed=True)
        target.write(replace(made, info=info))
    target.close()
    [(told, _, _)] = clips(tmp_path)
    assert told["stream"] == info.stream


def test_open_clips_are_written_when_the_sink_closes(tmp_path: Path) -> None:
    target = sink(tmp_path)
    target.open()
    play(target, ramp(1.4), segment(0, 1000, 1300))
    assert clips(tmp_path) == []
    target.close()
    [(told, _, _)] = clips(tmp_path)
    assert (told["start"], told["stop"]) == (900, 1400)


def test_clips_sink_passes_the_sink_checks(tmp_path: Path) -> None:
    events = segment(0, 200, 300)
    block = Block(0, ramp(1))
    messages = [
        message(e, e.stop if e is block else 400, True) for e in [block, *events]
    ]
    check_sink(lambda: sink(tmp_path), messages)


def test_check_prints_the_memory_of_clips(tmp_path: Path) -> None:
    [line] = sink(tmp_path, longest_s=94.7).describe()
    assert "100 s" in line
    assert "19.2 MB a stream" in line
