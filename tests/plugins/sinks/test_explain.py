"""Picture of what a detector heard: what it shows, and what it never overwrites."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from processes.cli_process import RECORDING, neurovocal

from neurovocal.engine import (
    Block,
    ConfigError,
    Event,
    Gap,
    Label,
    Message,
    NearMiss,
    Offset,
    Onset,
    StageError,
    StreamInfo,
    Trace,
)
from neurovocal.plugins import pictures
from neurovocal.plugins.sinks.explain import figure
from neurovocal.plugins.sinks.explain.figure import spectrogram
from neurovocal.plugins.sinks.explain.sink import (
    PICTURE,
    TITLE,
    ExplainOptions,
    ExplainSink,
    Heard,
    LabelledSpan,
    Segment,
    plugin,
)

RATE = 8000
INFO = StreamInfo("room.wav", RATE)
PNG = b"\x89PNG\r\n" + TITLE.encode()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Heard]:
    """What is handed to matplotlib, which need not be installed."""
    kept: list[Heard] = []

    def picture_of(heard: Heard, title: str) -> bytes:
        kept.append(heard)
        return PNG

    monkeypatch.setattr(figure, "picture_of", picture_of)
    return kept


def send(sink: ExplainSink, *events: Event, at: int, info: StreamInfo = INFO) -> None:
    for event in events:
        sink.write(Message(info, event, 0, at))


def ramp(start: int, count: int) -> Block:
    return Block(start, np.arange(start, start + count, dtype=np.float32)[:, None])


def trace(first: int, count: int) -> Trace:
    rows = np.tile(np.array([[first, 10, 8, -60]], np.float32), (count, 1))
    return Trace(first, 8, 8, rows, "dB")


def empty_trace() -> tuple[Any, Any, str]:
    return np.empty(0), np.empty((0, 4), np.float32), "dB"


def problems(**options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        ExplainSink(ExplainOptions(**options)).open()
    return list(map(str, caught.value.problems))


def test_it_keeps_what_lies_in_the_stretch_and_nothing_else(
    tmp_path: Path, drawn: list[Heard]
) -> None:
    path = tmp_path / "why.png"
    sink = ExplainSink(ExplainOptions(path=str(path), from_s=1.0, to_s=2.5))
    for second in range(10):
        start = second * RATE
        miss = NearMiss(start + 100, start + 200, 7.5, 10.0, "quiet")
        send(
            sink,
            ramp(start, RATE),
            trace(1000 * second, 1000),
            Onset(second, start + 4000, 12.0),
            Offset(second, start + 4000, start + 5000, False),
            miss,
            Gap(start + RATE - 80, start + RATE - 40, "overrun"),
            at=start + RATE,
        )
        assert sum(len(samples) for _, samples in sink._blocks) <= 1.5 * RATE
    sink.end_stream("room.wav")
    (heard,) = drawn
    assert (heard.start_s, heard.stop_s) == (1.0, 2.5)
    assert np.array_equal(heard.samples, np.arange(RATE, 2.5 * RATE, dtype=np.float32))
    assert [segment.onset_s for segment in heard.segments] == [1.5]
    assert [onset_s for onset_s, _, _ in heard.near_misses] == [1.0125, 2.0125]
    assert [start_s for start_s, _, _ in heard.gaps] == [1.99]
    assert heard.trace_s[0] == pytest.approx(1.0005)
    assert len(heard.trace) == len(heard.trace_s) == 1500
    assert path.read_bytes() == PNG
    assert sink.stats() == {"heard_s": 10.0, "drawn_s": [1.0, 2.5]}
    assert not sink._blocks


def test_final_labels_of_the_stretch_are_kept(
    tmp_path: Path, drawn: list[Heard]
) -> None:
    sink = ExplainSink(ExplainOptions(path=str(tmp_path / "why.png"), to_s=1.0))
    send(
        sink,
        ramp(0, RATE),
        Label(0, 800, None, "a", 0.5, "provisional", "classifier"),
        Label(0, 800, 1600, "b", 0.9, "final", "classifier"),
        Label(1, 9000, 9600, "c", 0.9, "final", "classifier"),
        at=RATE,
    )
    sink.close()
    (heard,) = drawn
    assert [(label.onset_s, label.offset_s) for label in heard.labels] == [(0.1, 0.2)]
    assert [(label.unit, label.posterior) for label in heard.labels] == [("b", 0.9)]


def test_labels_are_written_above_the_segments() -> None:
    pytest.importorskip("matplotlib")
    from neurovocal.plugins.pictures import new_figure

    heard = Heard("a", 0.0, 1.0, RATE, np.zeros(RATE, np.float32), *empty_trace())
    heard.segments = [Segment(0.1, 0.3, 12.0, False), Segment(0.6, 0.8, 13.0, False)]
    heard.labels = [
        LabelledSpan(0.1, 0.3, "trill", 0.87),
        LabelledSpan(0.6, 0.8, "unknown", 0.5),
    ]
    _, (axis,) = new_figure(12.0, [2.0])
    figure._draw_marks(axis, heard, 1 / 10.8)
    written = {text.get_text(): text.get_position() for text in axis.texts}
    assert written.keys() == {"trill", "0.87", "unknown", "0.50", "12.0", "13.0"}
    assert written["0.87"][1] > written["trill"][1] > written["12.0"][1]
    assert written["trill"][0] == pytest.approx(0.2)


def test_only_the_first_stream_is_drawn_and_only_once(
    tmp_path: Path, drawn: list[Heard]
) -> None:
    sink = ExplainSink(ExplainOptions(path=str(tmp_path / "why.png")))
    other = StreamInfo("other.wav", RATE)
    send(sink, ramp(0, 400), at=400)
    send(sink, ramp(0, 800), at=800, info=other)
    sink.end_stream("other.wav")
    assert not drawn
    sink.close()  # a run that was stopped
    sink.end_stream("room.wav")
    sink.close()
    (heard,) = drawn
    assert (heard.stream, len(heard.samples)) == ("room.wav", 400)


def test_samples_that_are_lost_are_zeros(tmp_path: Path, drawn: list[Heard]) -> None:
    sink = ExplainSink(ExplainOptions(path=str(tmp_path / "why.png")))
    send(sink, ramp(0, 100), Gap(100, 150, "overrun"), ramp(150, 50), at=200)
    sink.close()
    (heard,) = drawn
    expected = np.arange(200, dtype=np.float32)
    expected[100:150] = 0
    assert np.array_equal(heard.samples, expected)


def test_nothing_is_drawn_of_a_stream_that_ended_before(
    tmp_path: Path, drawn: list[Heard]
) -> None:
    sink = ExplainSink(ExplainOptions(path=str(tmp_path / "why.png"), from_s=5.0))
    send(sink, ramp(0, RATE), at=RATE)
    sink.end_stream("room.wav")
    assert not drawn
    assert sink.stats() == {"heard_s": 1.0, "drawn_s": None}
    assert list(tmp_path.iterdir()) == []


def test_a_picture_replaces_only_one_of_its_own(
    tmp_path: Path, drawn: list[Heard]
) -> None:
    own, holiday = tmp_path / "own.png", tmp_path / "holiday.png"
    own.write_bytes(PNG)
    holiday.write_bytes(b"\x89PNG\r\nthe sea")
    assert PICTURE.problem(own) is None
    (problem,) = (p for p in problems(path=str(holiday)) if "holiday" in p)
    assert "exists and is a picture, not a picture of this kind" in problem
    for path in (own, holiday):
        sink = ExplainSink(ExplainOptions(path=str(path)))
        send(sink, ramp(0, 100), at=100)
        if path is holiday:  # it came while the recording was read
            with pytest.raises(StageError, match="would be lost"):
                sink.close()
        else:
            sink.close()
    assert holiday.read_bytes().endswith(b"the sea")
    live = ExplainSink(ExplainOptions(path=str(own)), "set aside")
    send(live, ramp(0, 100), at=100)
    live.close()
    assert {path.name for path in tmp_path.iterdir()} == {
        "own.png",
        "own.1.left.png",
        "holiday.png",
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"path": "-"}, "a picture is a file: '-' is none"),
        ({"path": "why.jpg"}, "'why.jpg': the picture is a PNG: end its name in .png"),
        (
            {"path": "why.png", "from_s": 10, "to_s": 100},
            "10 to 100 s are too much for one picture, which holds 60 s: choose a "
            "shorter part",
        ),
        (
            {"path": "nowhere/why.png"},
            "'nowhere/why.png' cannot be written: folder 'nowhere' does not exist",
        ),
    ],
)
def test_a_picture_that_cannot_be_is_refused(
    options: dict[str, Any], sentence: str
) -> None:
    assert sentence in problems(**options)


def test_without_matplotlib_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda name: None)
    assert problems(path=str(tmp_path / "why.png")) == [
        "the picture of a detector needs matplotlib, which is not installed: pip "
        "install matplotlib (it comes with the extra 'train', too)"
    ]


def test_it_reads_no_file() -> None:
    """A recording of ten hours is not decoded a second time."""
    options = ExplainOptions(path="why.png", from_s=36_000)
    assert list(plugin.reads(options, None)) == []  # type: ignore[arg-type]
    assert options.end_s == 36_010


# ---- the spectrogram ----


@pytest.mark.parametrize("rate", [1000, 8000, 44_100, 250_000, 500_000])
def test_a_tone_stands_at_its_frequency_and_time(rate: int) -> None:
    samples = np.zeros(2 * rate, np.float32)
    time_s = np.arange(rate // 2) / rate
    samples[rate : rate + len(time_s)] = np.sin(2 * np.pi * rate / 4 * time_s)
    db = spectrogram(samples, rate, 400)
    assert db.shape[1] <= 400
    row, _ = np.unravel_index(db.argmax(), db.shape)
    assert row / (len(db) - 1) == pytest.approx(0.5, abs=0.02)  # of half the rate
    assert db.max() == pytest.approx(0.0, abs=0.1)
    loud = np.flatnonzero(db[row] > -6) / db.shape[1] * 2
    assert loud[0] == pytest.approx(1.0, abs=0.07)
    assert loud[-1] == pytest.approx(1.5, abs=0.07)


@pytest.mark.parametrize("count", [1, 2, 63, 1000])
def test_silence_and_few_samples_have_a_spectrum(count: int) -> None:
    db = spectrogram(np.zeros(count, np.float32), 32_000, 1000)
    assert np.all(db == -140.0)
    assert 1 <= db.shape[1] <= 1000


def test_texts_never_overlap_and_high_scores_come_first() -> None:
    middles, scores = [0.0, 0.1, 0.2, 1.0, 1.05], [1.0, 9.0, 2.0, 3.0, 3.5]
    assert figure._with_room(middles, scores, 0.15) == {1, 4}
    assert figure._with_room(middles, scores, 0.01) == set(range(5))


# ---- the command ----


def write_tone(path: Path, rate: int, channels: int = 1) -> None:
    samples = 0.01 * np.random.default_rng(5).standard_normal((2 * rate, channels))
    first, count = round(1.5 * rate), round(0.1 * rate)
    tone = 0.2 * np.sin(2 * np.pi * rate / 5 * np.arange(count) / rate)
    samples[first : first + count] += tone[:, None]
    soundfile.write(path, samples, rate, "PCM_16")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.wav", "--from", 1], "--from and --to choose the part that --explain"),
        (
            ["a.wav", "b.wav", "--explain", "why.png"],
            "--explain draws one recording, and these are 2: name one",
        ),
        (
            ["a.wav", "--channels", "1,3", "--explain", "why.png"],
            "--explain draws one channel: choose it, such as --channels 3",
        ),
        (
            ["a.wav", "--explain", "why.png", "--from", 3, "--to", 2],
            "--from 3 is not before --to 2: nothing would be drawn",
        ),
        (["a.wav", "--explain", "a.wav"], "the picture is a PNG"),
        (
            ["a.wav", "--explain", "why.png", "--out", "why.png"],
            "would both write the file",
        ),
        (["a.wav", "--explain", "old.png"], "exists and is a text file"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, arguments: list[object], sentence: str
) -> None:
    pytest.importorskip("matplotlib")
    write_tone(tmp_path / "a.wav", 8000, channels=3)
    write_tone(tmp_path / "b.wav", 8000)
    (tmp_path / "old.png").write_text("notes\n" * 9)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = neurovocal("detect", *arguments, cwd=tmp_path)
    assert done.code == 1
    assert sentence in done.err
    assert done.out == ""
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("rate", "channels"), [(1000, 1), (500_000, 1), (32_000, 8)])
def test_recordings_of_any_rate_and_number_of_channels_are_drawn(
    tmp_path: Path, rate: int, channels: int
) -> None:
    pytest.importorskip("matplotlib")
    write_tone(tmp_path / "a.wav", rate, channels)
    arguments = ["detect", "a.wav", "--channels", channels]
    table = neurovocal(*arguments, cwd=tmp_path)
    done = neurovocal(*arguments, "--explain", "why.png", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out == table.out  # near misses change nothing in the table
    assert len(list(csv.DictReader(io.StringIO(done.out)))) == 1
    assert "drew 0 to 2 s to 'why.png'" in done.err
    assert PICTURE.matches((tmp_path / "why.png").read_bytes())


def test_part_of_a_recording_is_said_to_be_a_part(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "why.png"
    options = ["--explain", picture, "--from", 28, "--out", tmp_path / "table.csv"]
    done = neurovocal("detect", RECORDING, *options)
    assert done.code == 0, done.err
    assert "drew 28 to 29.2264 s of 29.2264 s (--from and --to choose" in done.err
    options[3] = 40
    picture.unlink()
    done = neurovocal("detect", RECORDING, *options)
    assert done.code == 1
    assert "--from 40: the recording ends at 29.2264 s: no picture was wri" in done.err
    assert not picture.exists()


def test_an_empty_recording_gives_no_picture_and_a_silent_one_does(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 8000)
    done = neurovocal("detect", "empty.wav", "--explain", "why.png", cwd=tmp_path)
    assert done.code == 2
    assert "'empty.wav' holds no samples" in done.err
    assert not (tmp_path / "why.png").exists()
    done = neurovocal("detect", "silent.wav", "--explain", "why.png", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "why.png").exists()


def test_label_draws_its_labels(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ["--explain", "why.png", "--from", 3, "--to", 5, "--out", "labels.csv"]
    done = neurovocal("label", RECORDING, *options, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "drew 3 to 5 s" in done.err
    table = (tmp_path / "labels.csv").read_text()
    plain = neurovocal("label", RECORDING, cwd=tmp_path)
    assert plain.out == table  # a picture changes nothing in the table


def test_label_draws_the_probability_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "network.yaml").write_text(
        "version: 1\nsource: {plugin: file, options: {path: x.wav}}\n"
        "bundle: bengalese-finch\ndetector: {plugin: network}\n"
        "sinks: [{plugin: table}]\n"
    )
    options = ["--config", "network.yaml", "--explain", "why.png", "--to", 2]
    done = neurovocal("label", RECORDING, *options, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "why.png").exists()
