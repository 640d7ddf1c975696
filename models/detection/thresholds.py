"""Thresholds and durations of a detector network, chosen on validation recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from neurovocal.engine.audio.segmenter import Segmenter, SegmenterRules
from neurovocal.engine.contracts.types import Offset
from neurovocal.models.detection.network import DetectorNetwork
from neurovocal.models.detection.scenes import CALL, UNKNOWN, Scene
from neurovocal.models.toolkit.segment_scores import (
    SegmentScore,
    Span,
    score_onsets,
    score_overlaps,
)

_ON = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_OFF = (0.4, 0.6, 0.8)  # shares of `on`
_MIN_DURATION = (1, 2, 4)
_GAP_FILL = (2, 4, 8)
LOOKBACK = 8
ONSET_TOLERANCE = 5  # rows: 10 ms, or 5 ms above 96 kHz
LEAST_OVERLAP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class JudgedScene:
    """A recording with its calls in rows, by which thresholds are chosen."""

    scene: Scene
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class DetectorRules:
    """Thresholds of the score, and durations in rows."""

    on: float
    off: float
    min_duration: int
    gap_fill: int


def runs_of(scene: Scene) -> tuple[Span, ...]:
    """Return the runs of rows that belong to a call, for scenes without annotation."""
    is_call = np.concatenate(([False], scene.target == CALL, [False]))
    edges = np.flatnonzero(is_call[1:] != is_call[:-1])
    return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def scores_of(model: DetectorNetwork, scene: Scene, ahead: int) -> NDArray[np.float64]:
    """Return the score of each row, float64[n_rows], as the detector computes it."""
    excess = scene.excess.astype(np.float32)
    if len(excess) == 0:
        return np.empty(0)
    # The last scores wait for rows that never come: the last one is repeated.
    padded = np.concatenate((excess, np.repeat(excess[-1:], ahead, axis=0)))
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(padded)[None])
        scores = torch.sigmoid(logits[0, ahead:]).numpy()
    return scores.astype(np.float64)


def segments_in(scores: NDArray[np.float64], rules: DetectorRules) -> list[Span]:
    """Return the segments that the detector makes of scores, in rows."""
    segmenter = Segmenter(
        SegmenterRules(
            on=rules.on,
            off=rules.off,
            min_duration=rules.min_duration,
            gap_fill=rules.gap_fill,
            lookback=LOOKBACK,
        ),
        1,
    )
    marks = [*segmenter.process(0, scores), *segmenter.close(len(scores))]
    return [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]


def measure(
    scenes: Mapping[str, Sequence[JudgedScene]],
    scores: Mapping[str, Sequence[NDArray[np.float64]]],
    rules: DetectorRules,
) -> dict[str, dict[str, float]]:
    """Return F1 of onsets and of overlaps for each dataset.

    Segments in the middle of unknown rows are not counted.
    """
    figures = {}
    for name, judged in scenes.items():
        onsets = overlaps = SegmentScore(0, 0, 0)
        for each, own in zip(judged, scores[name], strict=True):
            found = [s for s in segments_in(own, rules) if _is_known(each.scene, s)]
            onsets += score_onsets(each.spans, found, ONSET_TOLERANCE)
            overlaps += score_overlaps(each.spans, found, LEAST_OVERLAP)
        figures[name] = {"onset_f1": onsets.f1, "overlap_f1": overlaps.f1}
    return figures


def choose_rules(
    scenes: Mapping[str, Sequence[JudgedScene]],
    scores: Mapping[str, Sequence[NDArray[np.float64]]],
    watch: Callable[[float], None] = lambda share: None,
) -> DetectorRules:
    """Choose the rules with the best mean over datasets of both F1 measures.

    Parameters
    ----------
    scenes : mapping of str to sequence of JudgedScene
        By dataset; each dataset counts the same.
    scores : mapping of str to sequence of float64[n_rows]
        Scores of the same scenes.
    watch : callable
        Called with the completed share.
    """
    candidates = list(_candidates())
    best, best_score = candidates[0], -1.0
    for number, rules in enumerate(candidates):
        figures = measure(scenes, scores, rules)
        score = float(np.mean([list(row.values()) for row in figures.values()]))
        if score > best_score:
            best, best_score = rules, score
        watch((number + 1) / len(candidates))
    return best


def _candidates() -> Iterator[DetectorRules]:
    for on, share, least, gap in product(_ON, _OFF, _MIN_DURATION, _GAP_FILL):
        yield DetectorRules(on, round(on * share, 3), least, gap)


def _is_known(scene: Scene, span: Span) -> bool:
    middle = min(int((span[0] + span[1]) / 2), len(scene.target) - 1)
    return bool(scene.target[middle] != UNKNOWN)
