"""Precision and recall of every detector on every annotated set: ``make bench-detect``.

Recordings are read from ``../shared/data`` or the folder NEUROVOCAL_DATA. Rows and
columns of the table, and the recordings used for choices: docs/detectors.md.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from csv import DictReader
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import soundfile
import yaml
from numpy.typing import NDArray

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Offset, StreamInfo
from neurovocal.models.evaluation.segments import SegmentScore, score_segments

ROOT = Path(__file__).resolve().parents[2]
BLOCK_S = 0.032

Span = tuple[float, float]
Samples = NDArray[np.float32]
Method = Callable[[Samples, int], list[Span]]


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

    ``own_ms`` is a tolerance that fits the set's sounds and the precision of its
    annotation.
    """

    name: str
    folder: str
    preset: str
    own_ms: float
    row: dict[str, str] = field(default_factory=dict)
    """Keep the rows of files.csv that begin with these values."""
    skip_labels: frozenset[str] = frozenset()
    spans_only: bool = False
    """Judge within annotated_spans.csv only."""


_MIXES = ("rain", "sea_waves", "helicopter")

SETS = [
    DataSet("gy6or6 23+24 (choices)", "finch_gy6or6", "songbird", 10, {"split": "tr"}),
    DataSet("gy6or6 25 (held out)", "finch_gy6or6", "songbird", 10, {"split": "valid"}),
    DataSet("bird0", "finch_bird0", "songbird", 10, spans_only=True),
    DataSet(
        "zebra typed",
        "zebra_finch_G402",
        "songbird",
        20,
        {"label_kind": "syllable_types"},
    ),
    DataSet(
        "zebra s+n",
        "zebra_finch_G402",
        "songbird",
        20,
        {"label_kind": "syllable_vs_noise"},
    ),
    DataSet("spinetail", "field_spinetail", "songbird", 100),
    *(DataSet(f"mix {n}", "noise_mixes", "songbird", 20, {"noise": n}) for n in _MIXES),
    DataSet("meerkat", "meerkat", "mammal-calls", 30),
    DataSet("mouse", "mouse_usv", "mouse-ultrasound", 5),
    DataSet("bats", "bats_europe", "bat-ultrasound", 2),
    DataSet(
        "fly 60 s",
        "fly_song",
        "insects",
        10,
        {"file": "audio/2019"},
        frozenset({"ambient"}),
    ),
]


def data_folder() -> Path:
    """Return the folder of the annotated recordings."""
    default = ROOT.parent / "shared" / "data"
    return Path(os.environ.get("NEUROVOCAL_DATA", default))


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


def detect(
    plugin_name: str, options: dict[str, object], samples: Samples, sample_rate: int
) -> list[Span]:
    """Detect segments in seconds with a plugin, in blocks of 32 ms."""
    plugin = _registry().get("detector", plugin_name)
    context = BuildContext(
        clock=SystemClock(), run="bench", info=StreamInfo("bench", sample_rate)
    )
    detector = plugin.build(plugin.options.model_validate(options), context)
    block = max(1, round(BLOCK_S * sample_rate))
    column = samples[:, None]
    marks = []
    for start in range(0, len(column), block):
        marks += detector.process(Block(start, column[start : start + block]))
    marks += detector.flush()
    return [
        (mark.onset / sample_rate, mark.sample / sample_rate)
        for mark in marks
        if isinstance(mark, Offset)
    ]


@cache
def _registry() -> Registry:
    return Registry()


def preset_options(name: str) -> dict[str, object]:
    """Return the options of the `energy` detector in a shipped preset."""
    text = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    options: dict[str, object] = yaml.safe_load(text)["detector"]["options"]
    return options


def evfuncs_method(band: Sequence[float]) -> Method | None:
    """Return the segmenting of `evfuncs` (evsonganaly, hvc and vak), or None.

    It has its own defaults and the band of the preset.
    """
    try:
        from evfuncs import evfuncs
    except ImportError:
        return None

    def segment(samples: Samples, sample_rate: int) -> list[Span]:
        # Its amplitudes, and so its default threshold, are on the 16-bit scale.
        raw = samples.astype(np.float64) * 32768
        cutoffs = [band[0], min(band[1], 0.45 * sample_rate)]
        smooth = evfuncs.smooth_data(raw, sample_rate, freq_cutoffs=cutoffs)
        onsets, offsets = evfuncs.segment_song(smooth, sample_rate)
        if onsets is None:
            return []
        return list(zip(onsets.tolist(), offsets.tolist(), strict=True))

    return segment


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    score: SegmentScore
    own_score: SegmentScore
    audio_s: float
    cpu_s: float


def evaluate(recordings: list[Recording], method: Method, own_ms: float) -> Result:
    """Pool the scores of a method over recordings, each a stream of its own."""
    total = Result(SegmentScore(0, 0, 0), SegmentScore(0, 0, 0), 0.0, 0.0)
    for recording in recordings:
        samples, sample_rate = soundfile.read(recording.path, dtype="float32")
        began = time.process_time()
        found = method(samples, sample_rate)
        cpu_s = time.process_time() - began
        if recording.judged is not None:
            found = [span for span in found if _inside(span, recording.judged)]
        total = replace(
            total,
            score=total.score + score_segments(recording.spans, found, 0.010),
            own_score=total.own_score
            + score_segments(recording.spans, found, own_ms / 1000),
            audio_s=total.audio_s + len(samples) / sample_rate,
            cpu_s=total.cpu_s + cpu_s,
        )
    return total


def _inside(span: Span, judged: list[Span]) -> bool:
    middle = (span[0] + span[1]) / 2
    return any(start <= middle < stop for start, stop in judged)


def methods(which: DataSet) -> dict[str, Method | None]:
    """Return the compared methods by name; None where one is not installed."""
    preset = preset_options(which.preset)
    band = (float(str(preset["low_hz"])), float(str(preset["high_hz"])))
    return {
        "energy, default": partial(detect, "energy", {}),
        f"energy, {which.preset}": partial(detect, "energy", preset),
        "percentile 90": partial(detect, "percentile", {"scope": "file"}),
        "evfuncs": evfuncs_method(band),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="sets whose name contains this")
    arguments = parser.parse_args()
    data = data_folder()
    if not data.is_dir():
        print(f"no recordings in {data}: set NEUROVOCAL_DATA", file=sys.stderr)
        return 1
    print(
        "| set | files | s | method | P | R | F1 (10 ms) | F1 (own) | own ms | x RT |"
    )
    print("| --- | --: | --: | --- | --: | --: | --: | --: | --: | --: |")
    for which in SETS:
        if arguments.only not in which.name:
            continue
        recordings = read_set(which, data)
        for name, method in methods(which).items():
            if method is None:
                print(f"| {which.name} | | | {name} | not installed | | | | | |")
                continue
            result = evaluate(recordings, method, which.own_ms)
            score = result.score
            print(
                f"| {which.name} | {len(recordings)} | {result.audio_s:.0f} | {name} "
                f"| {score.precision:.3f} | {score.recall:.3f} | {score.f1:.3f} "
                f"| {result.own_score.f1:.3f} | {which.own_ms:g} "
                f"| {result.audio_s / max(result.cpu_s, 1e-9):.0f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
