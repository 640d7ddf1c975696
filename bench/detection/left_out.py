"""Choose the settings of ``bands`` on all groups of recordings but one, and judge it.

Settings are drawn at random around the defaults (`SPACE`), each is judged on about
`LEARN_S` seconds of each set, and for each group the best of the draws on the other
groups, by the mean of onset F1 and F1 at an overlap (IoU) of 0.5, is judged on all of
that group's recordings. With ``--n-loudest`` the number of bands that are averaged is
not drawn. Floors and bands are those of the defaults; levels are computed once.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from annotated_sets import SETS, DataSet, Recording, Span, data_folder, read_set
from detect import Samples, is_inside

from neurovocal.engine.contracts.types import Block, Float32, Offset
from neurovocal.models.toolkit.segment_scores import (
    SegmentScore,
    score_onsets,
    score_overlaps,
)
from neurovocal.plugins.detectors.band_excess import BandExcess
from neurovocal.plugins.detectors.bands import BandsOptions, make_detector

# What is drawn, each value as likely as the others.
SPACE: Mapping[str, Sequence[Any]] = {
    "on_db": (8.0, 9.0, 10.0, 11.0, 12.0, 13.0),
    "below_db": (2.0, 3.0, 4.0, 5.0),
    "n_loudest": (1, 2, 3, 4, 6),
    "mask_db": (12.0, 16.0, 20.0, 24.0),
    "min_duration_ms": (3.0, 4.0, 6.0, 8.0),
    "gap_fill_ms": (4.0, 6.0, 8.0, 12.0),
    "lookback_ms": (20.0, 30.0, 60.0),
    "follow": (True, True, True, False),
}
LEARN_S = 30.0

Figures = tuple[float, float]


class KnownExcess(BandExcess):
    """Levels over floors of a recording, computed once and returned at once."""

    def __init__(self, samples: Samples, sample_rate: int) -> None:
        super().__init__(BandsOptions(), sample_rate)
        block = Block(0, samples[:, None])
        self._rows = np.concatenate((super().push(block)[1], super().flush()[1]))

    def push(self, block: Block) -> tuple[int, Float32]:
        """Return all rows."""
        return 0, self._rows


@dataclass(frozen=True)
class Heard:
    """A recording with its levels over floors."""

    recording: Recording
    block: Block
    sample_rate: int
    excess: KnownExcess

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.block.samples) / self.sample_rate

    def segments(self, options: BandsOptions) -> list[Span]:
        """Detect segments in seconds, where they are judged."""
        rate, judged = self.sample_rate, self.recording.judged
        detector = make_detector(options, rate, self.excess)
        marks = [*detector.process(self.block), *detector.flush()]
        found = [
            (mark.onset / rate, mark.sample / rate)
            for mark in marks
            if isinstance(mark, Offset)
        ]
        if judged is None:
            return found
        return [span for span in found if is_inside(span, judged)]


def hear(recording: Recording) -> Heard:
    """Read a recording and compute its levels over floors."""
    samples, rate = soundfile.read(recording.path, dtype="float32")
    excess = KnownExcess(samples, rate)
    return Heard(recording, Block(0, samples[:, None]), rate, excess)


def figures(which: DataSet, heard: Sequence[Heard], options: BandsOptions) -> Figures:
    """Return onset F1 and F1 at an IoU of 0.5 over recordings of a set."""
    onsets = overlaps = SegmentScore(0, 0, 0)
    for each in heard:
        found, spans = each.segments(options), each.recording.spans
        onsets += score_onsets(spans, found, which.onset_ms / 1000)
        overlaps += score_overlaps(spans, found, 0.5)
    return onsets.f1, overlaps.f1


def mean_by_group(of_sets: Mapping[str, Figures]) -> dict[str, Figures]:
    """Return the means over the sets of each group."""
    groups: dict[str, list[Figures]] = {}
    for which in SETS:
        if which.name in of_sets:
            groups.setdefault(which.group, []).append(of_sets[which.name])
    return {
        group: (float(onset), float(overlap))
        for group, values in groups.items()
        for onset, overlap in [np.mean(values, axis=0)]
    }


def drawn(rng: np.random.Generator) -> BandsOptions:
    """Draw options."""
    values = {name: of[rng.integers(len(of))] for name, of in SPACE.items()}
    values["off_db"] = values["on_db"] - values.pop("below_db")
    return BandsOptions(**values)


def to_learn_from(heard: Sequence[Heard]) -> list[Heard]:
    """Return the first recordings of a set, up to `LEARN_S` or one more."""
    kept: list[Heard] = []
    for each in heard:
        if sum(other.seconds for other in kept) < LEARN_S:
            kept.append(each)
    return kept


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n-loudest", type=int, help="not drawn, but this")
    arguments = parser.parse_args()
    data = data_folder()
    sets = {which.name: which for which in SETS if which.group}
    heard = {
        name: [hear(each) for each in read_set(which, data)]
        for name, which in sets.items()
    }
    rng = np.random.default_rng(arguments.seed)
    draws = [drawn(rng) for _ in range(arguments.draws)]
    if arguments.n_loudest is not None:
        fixed = {"n_loudest": arguments.n_loudest}
        draws = [options.model_copy(update=fixed) for options in draws]
    judged = []
    for number, options in enumerate(draws, 1):
        of_sets = {
            name: figures(which, to_learn_from(heard[name]), options)
            for name, which in sets.items()
        }
        judged.append(mean_by_group(of_sets))
        if number % 50 == 0:
            print(f"{number} draws", file=sys.stderr, flush=True)
    print("| left out | onset | IoU 0.5 | settings |")
    print("| --- | --: | --: | --- |")
    left_out: list[Figures] = []
    for group in judged[0]:
        of_others = [
            np.mean([value for name, value in each.items() if name != group])
            for each in judged
        ]
        best = draws[int(np.argmax(of_others))]
        own = {
            name: figures(which, heard[name], best)
            for name, which in sets.items()
            if which.group == group
        }
        figure = mean_by_group(own)[group]
        left_out.append(figure)
        chosen = best.model_dump(include={*SPACE, "off_db"})
        listed = ", ".join(f"{name} {value}" for name, value in chosen.items())
        print(f"| {group} | {figure[0]:.3f} | {figure[1]:.3f} | {listed} |", flush=True)
    onset, overlap = np.mean(left_out, axis=0)
    print(f"| mean | {onset:.3f} | {overlap:.3f} | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
