"""Recordings that choose weights, and what a detector network finds in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neurovocal.engine.audio.segmenter import Segmenter
from neurovocal.engine.contracts.types import Float32, Offset
from neurovocal.models.detection.network import DetectorNetwork
from neurovocal.models.detection.scenes import CALL, UNKNOWN, Scene
from neurovocal.models.toolkit.segment_scores import (
    SegmentScore,
    Span,
    score_onsets,
    score_overlaps,
)
from neurovocal.plugins.detectors.bands import BandsOptions, detector_parts
from neurovocal.plugins.detectors.excess_network import corrected

ONSET_TOLERANCE = 5  # rows: 10 ms, or 5 ms above 96 kHz
LEAST_OVERLAP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class JudgedScene:
    """A recording with its calls.

    Parameters
    ----------
    scene : Scene
        Its rows.
    spans : tuple of (onset, offset)
        Calls in samples; by default the runs of rows that belong to a call.
    """

    scene: Scene
    spans: tuple[Span, ...] | None = None


def corrections_of(model: DetectorNetwork, scene: Scene, ahead: int) -> Float32:
    """Return the correction of each row in dB, as the detector computes it."""
    if len(scene.scores) == 0:
        return np.empty(0, np.float32)
    # The last rows wait for others that never come: the last one is repeated.
    levels, scores = (
        np.concatenate((values, np.repeat(values[-1:], ahead, axis=0)))
        for values in (scene.levels, scene.scores)
    )
    with torch.no_grad():
        corrections, _ = model(*batch_of(levels, scores))
    found: Float32 = corrections[0, ahead:].numpy()
    return found


def batch_of(
    levels: NDArray[np.floating], scores: NDArray[np.floating]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the network's inputs for one recording."""
    return (
        torch.from_numpy(levels.astype(np.float32))[None],
        torch.from_numpy(scores.astype(np.float32))[None],
    )


def measure(
    scenes: Mapping[str, Sequence[JudgedScene]],
    corrections: Mapping[str, Sequence[Float32]],
) -> dict[str, dict[str, float]]:
    """Return F1 of onsets and of overlaps for each dataset, corrected and not.

    Segments in the middle of unknown rows are not counted.
    """
    figures: dict[str, dict[str, float]] = {}
    for name, judged in scenes.items():
        scores = dict.fromkeys(
            ("onset_f1", "overlap_f1", "bands_onset_f1", "bands_overlap_f1"),
            SegmentScore(0, 0, 0),
        )
        for each, own in zip(judged, corrections[name], strict=True):
            for prefix, values in (("", own), ("bands_", np.zeros_like(own))):
                onsets, overlaps = _scores(each, values)
                scores[f"{prefix}onset_f1"] += onsets
                scores[f"{prefix}overlap_f1"] += overlaps
        figures[name] = {key: score.f1 for key, score in scores.items()}
    return figures


def _scores(
    judged: JudgedScene, corrections: Float32
) -> tuple[SegmentScore, SegmentScore]:
    scene = judged.scene
    excess, _, rules, recent = detector_parts(BandsOptions(), scene.sample_rate)
    hop, origin = excess.hop_length, (excess.frame_length - excess.hop_length) // 2
    adapt = None if recent is None else recent.add
    segmenter = Segmenter(rules, hop, origin, adapt)
    scores = corrected(scene.scores.astype(np.float64), corrections)
    end = len(scores) * hop + origin
    marks = [*segmenter.process(0, scores), *segmenter.close(end)]
    spans = judged.spans
    if spans is None:
        spans = _runs(scene, hop, origin)
    found = []
    for mark in marks:
        if isinstance(mark, Offset):
            row = int(((mark.onset + mark.sample) / 2 - origin) / hop)
            if scene.target[min(max(row, 0), len(scene.target) - 1)] != UNKNOWN:
                found.append((mark.onset, mark.sample))
    return (
        score_onsets(spans, found, ONSET_TOLERANCE * hop),
        score_overlaps(spans, found, LEAST_OVERLAP),
    )


def _runs(scene: Scene, hop_length: int, origin: int) -> tuple[Span, ...]:
    """Return the runs of rows that belong to a call, in samples."""
    is_call = np.concatenate(([False], scene.target == CALL, [False]))
    edges = np.flatnonzero(is_call[1:] != is_call[:-1]) * hop_length + origin
    return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
