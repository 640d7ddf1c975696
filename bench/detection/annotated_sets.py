"""Annotated sets of recordings that detectors are measured on."""

import os
import sys
from collections.abc import Iterator
from csv import DictReader
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

Span = tuple[float, float]


@dataclass(frozen=True)
class Recording:
    """One file with its annotated segments, in seconds."""

    path: Path
    spans: list[Span]
    judged: list[Span] | None = None
    """Where labels are complete; None for everywhere."""


@dataclass(frozen=True)
class DataSet:
    """A folder of annotated recordings, or some of them.

    ``group`` says which sets count as one in a mean; ``onset_ms`` is a tolerance of
    onsets that fits the set's sounds and the precision of its annotation.
    """

    name: str
    group: str
    folder: str
    preset: str
    onset_ms: float
    row: dict[str, str] = field(default_factory=dict)
    """Keep the rows of files.csv that begin with these values."""
    skip_labels: frozenset[str] = frozenset()
    spans_only: bool = False
    """Judge within annotated_spans.csv only."""


def _finch(days: str, split: str) -> DataSet:
    return DataSet(
        f"gy6or6 {days}", "finch gy", "finch_gy6or6", "songbird", 10, {"split": split}
    )


def _zebra(name: str, kind: str) -> DataSet:
    row = {"label_kind": kind}
    return DataSet(f"zebra {name}", "zebra", "zebra_finch_G402", "songbird", 20, row)


def _mix(noise: str) -> DataSet:
    row = {"noise": noise}
    return DataSet(f"mix {noise}", "mixes", "noise_mixes", "songbird", 20, row)


SETS = [
    _finch("23+24", "train"),
    _finch("25", "valid"),
    DataSet("bird0", "finch b0", "finch_bird0", "songbird", 10, spans_only=True),
    _zebra("typed", "syllable_types"),
    _zebra("s+n", "syllable_vs_noise"),
    DataSet("spinetail", "", "field_spinetail", "songbird", 100),
    _mix("rain"),
    _mix("sea_waves"),
    _mix("helicopter"),
    DataSet("meerkat", "meerkat", "meerkat", "mammal-calls", 30),
    DataSet("mouse", "mouse", "mouse_usv", "mouse-ultrasound", 20),
    DataSet("bats", "bats", "bats_europe", "bat-ultrasound", 2),
    DataSet(
        "fly 60 s",
        "fly",
        "fly_song",
        "insects",
        10,
        {"file": "audio/2019"},
        frozenset({"ambient"}),
    ),
]


def data_folder() -> Path:
    """Return the folder of the annotated recordings; end the program without one."""
    default = ROOT.parent / "shared" / "data"
    data = Path(os.environ.get("NEUROVOCAL_DATA", default))
    if not data.is_dir():
        sys.exit(f"no recordings in {data}: set NEUROVOCAL_DATA")
    return data


def read_set(which: DataSet, data: Path) -> list[Recording]:
    """Read the recordings of a set with their annotated segments."""
    folder = data / which.folder
    chosen = [
        row["file"]
        for row in _rows(folder / "files.csv")
        if all(row[key].startswith(value) for key, value in which.row.items())
    ]
    spans: dict[str, list[Span]] = {name: [] for name in chosen}
    for row in _rows(folder / "annotations.csv"):
        if row["file"] in spans and row["label"] not in which.skip_labels:
            spans[row["file"]].append((float(row["onset_s"]), float(row["offset_s"])))
    judged: dict[str, list[Span]] = {name: [] for name in chosen}
    if which.spans_only:
        for row in _rows(folder / "annotated_spans.csv"):
            if row["file"] in judged:
                span = (float(row["start_s"]), float(row["end_s"]))
                judged[row["file"]].append(span)
    return [
        Recording(
            folder / name, spans[name], judged[name] if which.spans_only else None
        )
        for name in chosen
    ]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        yield from DictReader(stream)
