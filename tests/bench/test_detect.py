"""Detector benchmark: annotations read, hits counted, table printed."""

import csv
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from repository import ROOT

SCRIPT = ROOT / "bench" / "detection" / "detect.py"
RATE = 32_000
CALLS = [(0.5, 0.6), (0.7, 0.75), (1.2, 1.4)]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = spec_from_file_location("neurovocal_bench_detect", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


def score(bench: ModuleType, data: Path, method: str, **options: Any) -> Any:
    which = bench.DataSet("birds", "birds", "songbird", 20, **options)
    found = bench.methods(which)[method]
    return bench.evaluate(bench.read_set(which, data), found, which.own_ms)


@pytest.mark.parametrize("method", ["energy, default", "energy, songbird"])
def test_all_annotated_calls_are_found(
    bench: ModuleType, data: Path, method: str
) -> None:
    result = score(bench, data, method, row={"split": "train"})
    assert result.score.hits == result.score.n_found == result.score.n_reference == 3
    assert result.audio_s == pytest.approx(2.0)
    assert result.cpu_s > 0


def test_detections_count_only_in_completely_annotated_spans(
    bench: ModuleType, data: Path
) -> None:
    everywhere = score(bench, data, "energy, default", row={"split": "valid"})
    assert (everywhere.score.n_reference, everywhere.score.n_found) == (2, 3)
    judged = score(
        bench, data, "energy, default", row={"split": "valid"}, spans_only=True
    )
    assert (judged.score.n_reference, judged.score.n_found) == (2, 2)


def test_skipped_labels_are_left_out(bench: ModuleType, data: Path) -> None:
    which = bench.DataSet("birds", "birds", "songbird", 20, skip_labels={"c"})
    assert [len(r.spans) for r in bench.read_set(which, data)] == [2, 2]


def test_every_set_has_recordings_and_segments(
    bench: ModuleType, data_folder: Path
) -> None:
    for which in bench.SETS:
        recordings = bench.read_set(which, data_folder)
        assert recordings, which.name
        assert all(r.spans for r in recordings), which.name
        assert all(r.path.is_file() for r in recordings), which.name


def run(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={"NEUROVOCAL_DATA": str(data), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_table_has_a_row_for_each_method(data_folder: Path) -> None:
    done = run(data_folder, "--only", "bats")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines()]
    assert [len(row) for row in rows] == [10] * 6
    methods = [row[3].strip() for row in rows[2:]]
    assert methods == [
        "energy, default",
        "energy, bat-ultrasound",
        "percentile 90",
        "evfuncs",
    ]
    assert float(rows[3][6]) > 0.9


def test_missing_recordings_end_with_a_message(tmp_path: Path) -> None:
    done = run(tmp_path / "absent")
    assert done.returncode == 1
    assert "NEUROVOCAL_DATA" in done.stderr
    assert "Traceback" not in done.stderr
