"""Recorded songs for comparison, generated songs, and their units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import read_samples
from neurovocal.models.data.targets import Units, targets_of
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.plugins.models.classifier.decision import LabelDecision
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback, Sampler, sampling_graph

# Silence kept around song; real frames that seed a generated song.
_KEPT_S = 0.1
_SEED_FRAMES = 200
_FRAMES_PER_DRAW = 250
ShareCallback = Callable[[float], None]


@dataclass(frozen=True, slots=True, eq=False)
class RecordedSong:
    """Frames of a recording from its first annotated segment to its last.

    Parameters
    ----------
    frames : float32[n_frames, n_bins]
        Scaled frames.
    voiced : bool[n_frames]
        Whether a frame's centre lies in an annotated segment.
    """

    frames: Float32
    voiced: NDArray[np.bool_]


def read_songs(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording], watch: ShareCallback
) -> list[RecordedSong]:
    """Read the songs of annotated recordings with the bundle's front end."""
    front_end = bundle.manifest.front_end
    features = build_front_end(front_end, bundle)
    keep = round(_KEPT_S * front_end.sample_rate / front_end.hop_length)
    songs = []
    for number, recording in enumerate(recordings, start=1):
        frames = frames_of(features, read_samples(recording, front_end.sample_rate))
        target, _ = targets_of(
            recording,
            Units([""], {a.unit: 1 for a in recording.annotations}),
            len(frames),
            front_end.sample_rate,
            front_end.hop_length,
            front_end.frame_length,
        )
        at = np.flatnonzero(target)
        if len(at):
            part = slice(max(0, at[0] - keep), at[-1] + 1 + keep)
            songs.append(RecordedSong(frames[part], target[part] > 0))
        watch(number / len(recordings))
    return songs


def unit_sequences(
    recordings: Sequence[AnnotatedRecording], index: dict[str, int]
) -> list[list[int]]:
    """Return annotated units in order; a unit missing in `index` ends a sequence."""
    sequences: list[list[int]] = []
    for recording in recordings:
        sequences.append([])
        for annotation in recording.own_annotations:
            unit = index.get(annotation.unit)
            if unit is None:
                sequences.append([])
            else:
                sequences[-1].append(unit)
    return sequences


def generate_songs(
    bundle: Bundle,
    feedback: Feedback,
    starts: Sequence[Float32],
    n_frames: int,
    seed: int,
    watch: ShareCallback,
) -> list[Float32]:
    """Generate a continuation of each of `starts` with the bundle's RNN-RBM.

    Parameters
    ----------
    starts : sequence of float32[n_seed, n_bins]
        At least two frames each.
    n_frames : int
        Frames to draw per start.
    seed : int
        Seed of the noise, together with the number of the start.

    Returns
    -------
    list of float32[n_frames, n_bins]
    """
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    sampler = Sampler(sampling_graph(bundle, spec), bundle, feedback=feedback)
    scoring = Session(bundle.path(spec.file))
    zeros = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)
    songs = []
    for number, start in enumerate(starts):
        scored = scoring.run(frames=start[:-1], u=zeros)
        sampler.start(start[-1], scored["u_next"], (seed, number))
        parts = []
        for first in range(0, n_frames, _FRAMES_PER_DRAW):
            parts.append(sampler.draw(min(_FRAMES_PER_DRAW, n_frames - first)))
            done = min(first + _FRAMES_PER_DRAW, n_frames)
            watch((number + done / n_frames) / len(starts))
        songs.append(np.concatenate(parts))
    return songs


def choose_seeds(
    songs: Sequence[RecordedSong], n_starts: int, rng: np.random.Generator
) -> list[Float32]:
    """Choose stretches of real song as seeds, evenly over the songs.

    Raises
    ------
    ConfigError
        No song is long enough.
    """
    long = [s.frames for s in songs if len(s.frames) > _SEED_FRAMES]
    if not long:
        raise ConfigError(
            f"no recording has {_SEED_FRAMES + 1} frames of song to start from"
        )
    starts = []
    for number in range(n_starts):
        song = long[number * len(long) // n_starts % len(long)]
        first = int(rng.integers(len(song) - _SEED_FRAMES))
        starts.append(song[first : first + _SEED_FRAMES])
    return starts


class SegmentClassifier:
    """Classify segments of frames with the bundle's classifier.

    The RNN-RBM was trained without labels and without this network, so it is an
    independent measure of generated song.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.classifier
        assert spec is not None
        self._session = Session(bundle.path(spec.file))
        self._states = {
            name: np.zeros(shape, np.float32) for name, shape in spec.state.items()
        }
        self._decision = LabelDecision(spec)
        self.units = [unit for unit in spec.units if unit != spec.silence]

    def name(self, song: Float32, segments: Sequence[tuple[int, int]]) -> list[str]:
        """Return the label of each segment ``(first, stop)``, in frames."""
        logs = self._log_posteriors(song)
        return [
            self._decision(logs[first:stop].sum(0), n_frames=stop - first)[0]
            for first, stop in segments
        ]

    def _log_posteriors(self, song: Float32) -> NDArray[np.float64]:
        logits = self._session.run(frames=song, **self._states)["logits"]
        logs = logits.astype(np.float64)
        logs -= logs.max(1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(1, keepdims=True))
        return logs

    def __call__(
        self, song: Float32, segments: NDArray[np.int64]
    ) -> tuple[list[list[int]], list[float]]:
        """Return sequences of unit indices, split at unknown units, and posteriors."""
        logs = self._log_posteriors(song)
        sequences: list[list[int]] = [[]]
        posteriors = []
        for first, stop in segments:
            unit, posterior = self._decision(logs[first:stop].sum(0))
            posteriors.append(posterior)
            if unit in self.units:
                sequences[-1].append(self.units.index(unit))
            else:
                sequences.append([])
        return sequences, posteriors


def split_evenly(songs: Sequence[Float32], n_frames: int) -> list[Float32]:
    """Split songs into pieces of `n_frames`; the remainder of a song is left out."""
    pieces = []
    for song in songs:
        edges = range(0, len(song) + 1, n_frames)
        pieces += [song[first:stop] for first, stop in pairwise(edges)]
    return pieces
