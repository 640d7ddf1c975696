"""Surprise of the RNN-RBM for foreign sounds.

Every recording is a stream of its own after background of the bird's recordings, so
that states have settled and the running baseline is that of the bird. Foreign
recordings are scaled to the level of the bird's syllables, so that loudness alone does
not separate them.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Float32, Frames, Surprise
from neurovocal.engine.lane.offline import build_front_end, context_of, frames_of
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import read_samples

_TILE = 8
_LONGEST_S = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class ForeignSound:
    """Samples float32[n_samples], and the measured stretches (first, stop)."""

    samples: Float32
    stretches: list[tuple[int, int]]


def sound_of(
    recording: AnnotatedRecording,
    sample_rate: int,
    stretches_s: Sequence[tuple[float, float]],
) -> ForeignSound:
    """Return the first seconds of a recording, with the stretches inside."""
    samples = read_samples(recording, sample_rate)[: round(_LONGEST_S * sample_rate)]
    stretches = [
        (round(first_s * sample_rate), round(stop_s * sample_rate))
        for first_s, stop_s in stretches_s
    ]
    return ForeignSound(
        samples, [s for s in stretches if 0 <= s[0] < s[1] <= len(samples)]
    )


def in_annotated_segments(
    recording: AnnotatedRecording, sample_rate: int
) -> ForeignSound:
    """Return a recording with its annotated segments as stretches."""
    stretches = [(a.onset_s, a.offset_s) for a in recording.annotations]
    return sound_of(recording, sample_rate, stretches)


def in_active_stretches(
    recording: AnnotatedRecording, sample_rate: int
) -> ForeignSound:
    """Return a recording with stretches from `active_start_s` to `active_end_s`.

    Stretches have 0.1 s, so that a long sound counts more than once.

    Raises
    ------
    ConfigError
        files.csv has no such columns.
    """
    try:
        first_s = float(recording.columns["active_start_s"])
        stop_s = float(recording.columns["active_end_s"])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{recording.path}: files.csv says no active_start_s and active_end_s"
        ) from error
    starts = np.arange(first_s, max(first_s + 0.05, stop_s - 0.1), 0.1)
    pieces = [(s, min(s + 0.1, stop_s)) for s in starts.tolist()]
    return sound_of(recording, sample_rate, pieces)


def unannotated_recordings(folder: Path) -> list[AnnotatedRecording]:
    """Read the recordings of a folder's files.csv, without annotations."""
    with (folder / "files.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    empty = AnnotatedRecording("", folder, 0.0, 0, ())
    return [
        replace(
            empty,
            file=row["file"],
            path=folder / row["file"],
            duration_s=float(row["duration_s"]),
            sample_rate=int(row["sample_rate_hz"]),
            columns=row,
        )
        for row in rows
    ]


def level_of(sounds: Sequence[ForeignSound]) -> float:
    """Return the median root mean square of the stretches."""
    levels = [
        float(np.sqrt(np.square(sound.samples[first:stop]).mean()))
        for sound in sounds
        for first, stop in sound.stretches
    ]
    return float(np.median(levels))


def scale_to_level(sounds: Sequence[ForeignSound], level: float) -> list[ForeignSound]:
    """Scale each recording to that median level of its stretches."""
    changed = []
    for sound in sounds:
        if sound.stretches and (own := level_of([sound])) > 0:
            samples = (sound.samples * (level / own)).astype(np.float32)
            changed.append(ForeignSound(np.clip(samples, -1, 1), sound.stretches))
    return changed


def replace_by_noise(sound: ForeignSound, rng: np.random.Generator) -> ForeignSound:
    """Replace every stretch by white noise of the same level and length."""
    samples = sound.samples.copy()
    for first, stop in sound.stretches:
        part = samples[first:stop]
        level = np.sqrt(np.square(part).mean())
        samples[first:stop] = level * rng.standard_normal(stop - first)
    return ForeignSound(samples, sound.stretches)


def background_of(sounds: Sequence[ForeignSound], n_samples: int) -> Float32:
    """Return samples outside of stretches, float32[n_samples], repeated if too few."""
    parts = []
    for sound in sounds:
        quiet = np.ones(len(sound.samples), bool)
        for first, stop in sound.stretches:
            quiet[max(0, first - 500) : stop + 500] = False
        parts.append(sound.samples[quiet])
    found = np.concatenate(parts)
    return np.resize(found, n_samples).astype(np.float32)


Scorer = Callable[[Float32], Float32]


def plugin_surprise(bundle: Bundle, **options: object) -> Scorer:
    """Return a function for the surprise of each frame, by the engine's `rnn_rbm`."""
    front_end = bundle.manifest.front_end
    registry = Registry()
    plugin = registry.get("model", "rnn_rbm")
    context = replace(context_of(bundle, "evaluation"), tile=_TILE)
    model = plugin.build(plugin.options.model_validate(options), context)

    def score(frames: Float32) -> Float32:
        model.reset()
        values = []
        for first in range(0, len(frames), _TILE):
            tile = frames[first : first + _TILE]
            item = Frames(first, front_end.hop_length, front_end.frame_length, tile)
            values += [e.values for e in model.process(item) if isinstance(e, Surprise)]
        return np.concatenate([np.zeros(0, np.float32), *values])

    return score


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Mean and largest value of every stretch, and the values of its frames."""

    mean: NDArray[np.float64]
    max: NDArray[np.float64]
    frames: NDArray[np.float64]


def scores_of(
    sounds: Sequence[ForeignSound], bundle: Bundle, background: Float32, score: Scorer
) -> Scores:
    """Compute `score` in the stretches of sounds that follow `background`."""
    front_end = bundle.manifest.front_end
    features = build_front_end(front_end, bundle)
    hop, half = front_end.hop_length, front_end.frame_length // 2
    inside = []
    for sound in sounds:
        frames = frames_of(features, np.concatenate([background, sound.samples]))
        values = score(frames).astype(np.float64)
        for first, stop in sound.stretches:
            # Frames whose centres lie in the stretch.
            lo, hi = (-(-(len(background) + s - half) // hop) for s in (first, stop))
            if hi > lo:
                inside.append(values[lo:hi])
    if not inside:
        raise ConfigError("the recordings have no stretch that holds a frame's centre")
    return Scores(
        np.array([v.mean() for v in inside]),
        np.array([v.max() for v in inside]),
        np.concatenate(inside),
    )
