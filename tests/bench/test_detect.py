"""Detector benchmark: annotations read, hits counted, table printed."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import detect
import numpy as np
import pytest
import soundfile
from annotated_sets import SETS, DataSet, Recording, read_set
from few_examples import split_examples
from peers import MOUSE_TOOLS, published
from repository import ROOT

SCRIPT = ROOT / "bench" / "detection" / "detect.py"
RATE = 32_000
CALLS = [(0.5, 0.6), (0.7, 0.75), (1.2, 1.4)]


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two recordings; in the second, only the first half is annotated."""
    folder = tmp_path / "birds"
    (folder / "audio").mkdir(parents=True)
    samples = 0.003 * np.random.default_rng(0).standard_normal(2 * RATE)
    for onset, offset in CALLS:
        first, last = round(onset * RATE), round(offset * RATE)
        samples[first:last] += 0.2 * np.sin(0.6 * np.arange(last - first))
    for name in ("one", "two"):
        soundfile.write(folder / "audio" / f"{name}.wav", samples, RATE)
    table(
        folder / "files.csv",
        [
            {"file": "audio/one.wav", "split": "train"},
            {"file": "audio/two.wav", "split": "valid"},
        ],
    )
    rows = [
        {"file": f"audio/{name}.wav", "onset_s": on, "offset_s": off, "label": label}
        for name, calls in (("one", CALLS), ("two", CALLS[:2]))
        for (on, off), label in zip(calls, "abc", strict=False)
    ]
    table(folder / "annotations.csv", rows)
    table(
        folder / "annotated_spans.csv",
        [{"file": "audio/two.wav", "start_s": 0.0, "end_s": 1.0}],
    )
    return tmp_path


def score(data: Path, method: str, **options: Any) -> detect.Result:
    which = DataSet("birds", "birds", "birds", "songbird", 20, **options)
    find = detect.methods(which)[method]
    assert find is not None
    return detect.evaluate(read_set(which, data), find, which.onset_ms)


@pytest.mark.parametrize("method", ["energy", "preset songbird"])
def test_all_annotated_calls_are_found(data: Path, method: str) -> None:
    result = score(data, method, row={"split": "train"})
    for measure, counts in result.scores.items():
        assert (counts.hits, counts.n_found, counts.n_reference) == (3, 3, 3), measure
    assert result.audio_s == pytest.approx(2.0)
    assert result.cpu_s > 0


def test_detections_count_only_in_completely_annotated_spans(data: Path) -> None:
    everywhere = score(data, "energy", row={"split": "valid"}).scores["onset"]
    assert (everywhere.n_reference, everywhere.n_found) == (2, 3)
    judged = score(data, "energy", row={"split": "valid"}, spans_only=True)
    assert judged.scores["onset"].n_found == 2


def test_skipped_labels_are_left_out(data: Path) -> None:
    which = DataSet("birds", "", "birds", "songbird", 20, skip_labels=frozenset("c"))
    assert [len(r.spans) for r in read_set(which, data)] == [2, 2]


def test_every_set_has_recordings_and_segments(data_folder: Path) -> None:
    for which in SETS:
        recordings = read_set(which, data_folder)
        assert recordings, which.name
        assert all(r.spans for r in recordings), which.name
        assert all(r.path.is_file() for r in recordings), which.name


def test_tools_for_mice_are_read_with_either_decimal_sign(data_folder: Path) -> None:
    recording = data_folder / "mouse_usv" / "audio" / "amvoc_rec_1.flac"
    first = {tool: published(tool, recording)[0] for tool in MOUSE_TOOLS}
    assert first["deepsqueak"] == (0.0541725, 0.0781725)
    assert first["msa1"] == (0.0775, 0.0811)
    assert all(0 <= onset < offset for onset, offset in first.values())


def test_mean_is_over_groups_not_over_sets() -> None:
    means = detect.GroupMeans()
    found, missed = detect.SegmentScore(1, 1, 1), detect.SegmentScore(0, 1, 1)
    for group, counts in (("a", found), ("a", found), ("b", missed), ("", missed)):
        means.add("energy", group, dict.fromkeys(detect.MEASURES, counts))
    assert list(means.rows()) == [
        "| energy | 2 | 0.500 | 0.500 | 0.500 | 0.500 | 0.000 |"
    ]


def run(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "NEUROVOCAL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_table_has_a_row_for_each_method(data_folder: Path) -> None:
    done = run(data_folder, "--only", "bats", "--choices", "1")
    assert done.returncode == 0, done.stderr
    table, means = done.stdout.split("\n\n")
    rows = [line.split("|")[1:-1] for line in table.splitlines()]
    assert {len(row) for row in rows} == {12}
    methods = [row[3].strip() for row in rows[2:]]
    assert methods[:6] == [
        "bands",
        "energy",
        "any-animal*",
        "preset bat-ultrasound",
        "percentile 90",
        "evfuncs",
    ]
    assert float(rows[5][5]) > 0.85
    assert len(means.splitlines()) == 2 + len(
        [row for row in rows[2:] if "not installed" not in row[4]]
    )


def test_missing_recordings_end_with_a_message(tmp_path: Path) -> None:
    done = run(tmp_path / "absent")
    assert done.returncode == 1
    assert "NEUROVOCAL_DATA" in done.stderr
    assert "Traceback" not in done.stderr


def test_examples_are_the_first_segments_and_the_rest_is_judged(data: Path) -> None:
    which = DataSet("birds", "", "birds", "songbird", 20)
    examples, rest = split_examples(read_set(which, data), 4)
    assert [each.path.name for each in examples] == ["one.wav"] * 3 + ["two.wav"]
    assert [len(recording.spans) for recording in rest] == [0, 1]
    assert [recording.judged for recording in rest] == [[(1.4, inf)], [(0.6, inf)]]


def test_sound_before_the_annotated_part_is_not_taken_for_complete() -> None:
    spans = [(3.0, 3.1), (3.5, 3.6), (7.0, 7.1)]
    recording = Recording(Path("one.wav"), spans, [(2.5, 3.3), (3.3, 4.0), (6.5, 8.0)])
    examples, _ = split_examples([recording], 2)
    assert [each.listed_from_s for each in examples] == [2.5, 2.5]
    examples, _ = split_examples([replace(recording, spans=spans[2:])], 1)
    assert examples[0].listed_from_s == 6.5


def test_a_detector_of_few_examples_finds_the_rest(data: Path) -> None:
    which = DataSet("birds", "", "birds", "songbird", 20)
    n = 2
    scores = detect.evaluate_fitted(read_set(which, data), 1, n, which.onset_ms).scores
    # Of the second recording, which holds the same sounds, one is not annotated.
    assert (scores["onset"].hits, scores["onset"].n_found) == (4 * n, 5 * n)
    assert scores["IoU 0.5"].hits == 4 * n


def test_other_examples_follow_a_random_moment(data: Path) -> None:
    recordings = read_set(DataSet("birds", "", "birds", "songbird", 20), data)
    for choice in range(1, 8):
        examples, rest = split_examples(recordings, 1, choice)
        assert examples == split_examples(recordings, 1, choice)[0]
        assert sum(len(recording.spans) for recording in rest) == 4
        assert examples[0].listed_from_s <= examples[0].onset_s
