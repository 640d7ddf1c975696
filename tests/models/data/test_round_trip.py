"""Tables that the table sink writes, read back as annotations to the sample."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from neurovocal.engine import BuildContext, Label, Message, StreamInfo
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.models.data.datasets import read_dataset
from neurovocal.plugins.sinks.table import TableOptions, plugin
from tests.helpers.datasets.small_folders import read, write_files

Segment = tuple[int, int, str]


def write_table(path: Path, form: str, rows: Sequence[tuple[StreamInfo, Segment]]):
    """Write final labels in the order of the rows."""
    options = TableOptions(path=str(path), format=form, apart=form == "audacity")
    sink = plugin.build(options, BuildContext(clock=SystemClock(), run=""))
    sink.open()
    for number, (info, (onset, offset, unit)) in enumerate(rows):
        event = Label(number, onset, offset, unit, 0.5, "final", "m")
        sink.write(Message(info=info, event=event, seq=number, at=offset))
    sink.close()


def segments_of(seed: int, n_samples: int) -> list[Segment]:
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.choice(n_samples, 20, replace=False)).tolist()
    labels = ("a", "01", "NA", 'say "b"', "e\u0301t\u00e9", "long call")
    return [
        (edges[k], edges[k + 1], labels[k // 2 % len(labels)])
        for k in range(0, len(edges), 2)
    ]


@pytest.mark.parametrize("form", ["raven", "audacity", "csv"])
@pytest.mark.parametrize("rate", [8000, 44100, 384_000, 3_000_000])
@pytest.mark.parametrize("streams", [("a.wav",), ("a.wav", "day 1/b.wav", "c.wav.ch2")])
def test_segments_come_back_to_the_sample(
    tmp_path: Path, form: str, rate: int, streams: tuple[str, ...]
) -> None:
    n_samples = 4001
    rows, wanted = [], {}
    for seed, stream in enumerate(streams):
        recording, _, channel = stream.partition(".ch")
        number = int(channel or 1)
        path = tmp_path / recording
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(seed).normal(0, 0.1, (n_samples, number))
        soundfile.write(path, noise, rate, subtype="FLOAT")
        info = StreamInfo(stream, rate, 1, (number,), n_samples / rate)
        segments = segments_of(seed, n_samples)
        rows += [(info, segment) for segment in segments]
        wanted[recording, number] = [
            (onset, offset, unit.replace("e\u0301", "\u00e9"))
            for onset, offset, unit in segments
        ]
    name = "annotations.csv" if form == "csv" else "labels.txt"
    write_table(tmp_path / name, form, rows)
    dataset = read_dataset(tmp_path, None if form == "csv" else form)
    found = {
        (r.file, r.channel): [
            (round(a.onset_s * rate), round(a.offset_s * rate), a.unit)
            for a in r.annotations
        ]
        for r in dataset.recordings
    }
    assert found == wanted


def test_recordings_of_one_name_in_two_folders_come_back(tmp_path: Path) -> None:
    for form in ("raven", "audacity"):
        folder = write_files(tmp_path / form, {"1/a.wav": "", "2/a.wav": ""})
        infos = [StreamInfo(f"{k}/a.wav", 8000, 1, (1,), 4.0) for k in (1, 2)]
        rows = [
            (info, (8000 * k, 8000 * k + 1600, "x")) for k, info in enumerate(infos)
        ]
        write_table(folder / "labels.txt", form, rows)
        found, problems, _ = read(folder, form)
        assert not problems
        assert found == {"1/a.wav": [(0, 0.2, "x")], "2/a.wav": [(1, 1.2, "x")]}


def test_a_table_of_the_only_recording_needs_no_name(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"a.wav": "", "labels.txt": "1.0\t1.2\tx\n"})
    found, _, notes = read(folder, "audacity")
    assert found == {"a.wav": [(1.0, 1.2, "x")]}
    assert any("'labels.txt' to 'a.wav'" in note for note in notes)
    write_files(folder, {"b.wav": ""})
    _, problems, _ = read(folder, "audacity")
    assert "labels.txt: no recording of the same name" in problems[0]


def test_the_columns_of_a_raven_table_are_those_that_raven_writes(
    tmp_path: Path,
) -> None:
    infos = [StreamInfo(f"{name}.wav", 8000, 1, (), 4.0) for name in "ab"]
    write_table(tmp_path / "t.txt", "raven", [(i, (800, 1600, "x")) for i in infos])
    with (tmp_path / "t.txt").open(newline="") as stream:
        first, second = csv.DictReader(stream, delimiter="\t")
    assert (first["Begin Time (s)"], first["File Offset (s)"]) == (
        "0.100000",
        "0.100000",
    )
    assert (second["Begin Time (s)"], second["File Offset (s)"]) == (
        "4.100000",
        "0.100000",
    )
