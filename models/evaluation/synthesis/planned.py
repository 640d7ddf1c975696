"""Song after a plan: drawn, and heard by the bundle's classifier."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.evaluation.synthesis.songs import (
    SegmentClassifier,
    ShareCallback,
)
from neurovocal.plugins.models.rnn_rbm.plan.condition import SILENCE
from neurovocal.plugins.models.rnn_rbm.plan.sampler import PlannedSampler, Planner

_SONG_S = 10.0
# A song is entered at random within so much of its plan, since one that is drawn from
# its beginning would have more introductory notes than recordings of the same length.
_ENTRY_S = 30.0
_WARM_UP_FRAMES = 50


def draw_planned(
    bundle: Bundle, n_songs: int, n_frames: int, seed: int, watch: ShareCallback
) -> tuple[list[Float32], list[NDArray[np.int64]]]:
    """Draw songs after plans of their own, each from a place within its plan.

    Parameters
    ----------
    bundle : Bundle
        Bundle with a plan.
    n_songs, n_frames : int
        Number and length of the songs.
    seed : int
        Seed of all draws, together with the number of the song.
    watch : callable
        Called with the completed share.

    Returns
    -------
    songs : list of float32[n_frames, n_bins]
    plans : list of int64[n_frames]
        Unit of each frame, from 1; `SILENCE` between units.
    """
    front_end = bundle.manifest.front_end
    entry = round(_ENTRY_S * front_end.sample_rate / front_end.hop_length)
    planner = Planner(bundle)
    plan = planner.song_plan()
    sampler = PlannedSampler(planner, plan)
    rng = np.random.default_rng(seed)
    songs, plans = [], []
    for number in range(n_songs):
        sampler.begin((), (seed, number), free=True)
        for _ in range(int(rng.integers(entry))):
            plan.row()
        sampler.draw(_WARM_UP_FRAMES)
        song = np.empty((n_frames, planner.spec.n_visible), np.float32)
        units = np.zeros(n_frames, np.int64)
        for frame in range(n_frames):
            units[frame] = plan.unit
            song[frame] = sampler.step()
        songs.append(song)
        plans.append(units)
        watch((number + 1) / n_songs)
    return songs, plans


def heard_units(
    bundle: Bundle, seconds: float, seed: int, watch: ShareCallback
) -> dict[str, Any]:
    """Count the planned units that the bundle's classifier hears as such.

    The classifier has no part in the plan's training. It is given the planned edges
    of a unit, not those of a detector.

    Returns
    -------
    dict
        ``units``, their number; ``heard_percent``; ``confused``: planned unit, unit
        that was heard, and how often.
    """
    front_end = bundle.manifest.front_end
    frames_per_s = front_end.sample_rate / front_end.hop_length
    n_songs = max(1, round(seconds / _SONG_S))
    n_frames = round(seconds * frames_per_s / n_songs)
    songs, plans = draw_planned(bundle, n_songs, n_frames, seed, watch)
    return compare_units(bundle, songs, plans)


def compare_units(
    bundle: Bundle, songs: Sequence[Float32], plans: Sequence[NDArray[np.int64]]
) -> dict[str, Any]:
    """Compare planned units with those that the classifier hears, as `heard_units`."""
    assert bundle.manifest.plan is not None
    names = bundle.manifest.plan.units
    classifier = SegmentClassifier(bundle)
    n_units, n_heard = 0, 0
    confused: dict[tuple[str, str], int] = {}
    for song, plan in zip(songs, plans, strict=True):
        edges = np.flatnonzero(np.diff(plan)) + 1
        spans = [
            (int(first), int(stop), int(plan[first]))
            for first, stop in itertools.pairwise(edges)
            if plan[first] != SILENCE
        ]
        heard = classifier.name(song, [(first, stop) for first, stop, _ in spans])
        for (_, _, unit), found in zip(spans, heard, strict=True):
            planned = names[unit - 1]
            n_units += 1
            n_heard += found == planned
            if found != planned:
                key = (planned, found)
                confused[key] = confused.get(key, 0) + 1
    return {
        "units": n_units,
        "heard_percent": round(100 * n_heard / max(1, n_units), 2),
        "confused": [[*pair, n] for pair, n in sorted(confused.items())],
    }
