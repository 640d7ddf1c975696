"""Quality of generated song beside real song, shuffled frames and a linear process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.evaluation.synthesis.measures import (
    FrameDetector,
    PairCounts,
    divergence_bits,
    independent_pairs,
    kolmogorov_smirnov,
    modulation_correlation,
    pair_counts,
    spectrum_distance,
    transition_gain_nats,
)
from neurovocal.models.evaluation.synthesis.patches import (
    PatchSpace,
    Points,
    frechet_distance,
    nearest_patch_distances,
    spread,
)
from neurovocal.models.evaluation.synthesis.planned import (
    compare_units,
    draw_planned,
)
from neurovocal.models.evaluation.synthesis.references import (
    AR_ORDER,
    LinearProcess,
    shuffle_frames,
)
from neurovocal.models.evaluation.synthesis.songs import (
    RecordedSong,
    SegmentClassifier,
    choose_seeds,
    generate_songs,
    read_songs,
    split_evenly,
    unit_sequences,
)
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback

SongCallback = Callable[[str, Sequence[Float32]], None]
N_SEQUENCES = 8
CONFIDENT_POSTERIOR = 0.9
_REPEAT_FRAMES = 1000  # length of the pieces in which repeats are searched
_REPEAT_QUANTILE = 0.01


@dataclass(frozen=True, slots=True)
class DatasetSplit:
    """Recordings that the bundle was trained on, and held-out ones."""

    known: list[AnnotatedRecording]
    held_out: list[AnnotatedRecording]


def split_dataset(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording], against: str
) -> DatasetSplit:
    """Split a dataset by the recordings that the bundle's manifest names.

    Where it names none of them (another bird), every second recording counts as
    known.

    Parameters
    ----------
    against : {'test', 'valid'}
        Split of the held-out recordings.

    Raises
    ------
    ConfigError
        A part is empty.
    """
    named: dict[str, list[str]] = bundle.manifest.training.get("recordings", {})
    annotated = [r for r in recordings if r.annotations]
    known = [r for r in annotated if r.file in named.get("train", [])]
    held_out = [r for r in annotated if r.file in named.get(against, [])]
    if not known and not held_out:
        known, held_out = annotated[::2], annotated[1::2]
    for part, what in ((known, "train"), (held_out, against)):
        if not part:
            raise ConfigError(
                f"the dataset has no whole recording that the bundle's manifest names "
                f"under training.recordings.{what}: evaluate on the folder it was "
                "trained on, or on one without any of these recordings"
            )
    return DatasetSplit(known, held_out)


class SongComparison:
    """Comparison of songs with held-out real ones.

    Parameters
    ----------
    bundle : Bundle
    known, held_out : list of Song
    pairs : float64[n_units, n_units], optional
        The bird's transitions; None without a classifier.
    """

    def __init__(
        self,
        bundle: Bundle,
        known: Sequence[RecordedSong],
        held_out: Sequence[RecordedSong],
        pairs: PairCounts | None,
    ) -> None:
        front_end = bundle.manifest.front_end
        self._frames_per_s = front_end.sample_rate / front_end.hop_length
        self._detector = FrameDetector.fit(
            [s.frames for s in known], [s.voiced for s in known]
        )
        self._classifier = None if pairs is None else SegmentClassifier(bundle)
        self._pairs = pairs
        self._space = PatchSpace.fit([s.frames for s in known])
        self._real = [s.frames for s in held_out]
        self._points = self._space.project(self._real)
        self._spread = spread(self._per_song(self._real))
        self._durations = self._durations_of(self._real)
        pieces = self._per_song(split_evenly([s.frames for s in known], _REPEAT_FRAMES))
        repeats = nearest_patch_distances(pieces)
        self._near = np.quantile(repeats, _REPEAT_QUANTILE) if len(repeats) else 0.0

    def __call__(self, songs: Sequence[Float32]) -> dict[str, float]:
        """Return all measures of some songs (docs/research/synthesis-quality.md)."""
        durations = self._durations_of(songs)
        seconds = sum(map(len, songs)) / self._frames_per_s
        median = float(np.median(durations)) if len(durations) else float("nan")
        figures = {
            "frechet_distance": frechet_distance(
                self._space.project(songs), self._points
            ),
            "units_per_s": len(durations) / seconds,
            "duration_median_ms": 1000 * median / self._frames_per_s,
            "duration_ks": kolmogorov_smirnov(durations, self._durations),
            "spectrum_distance": spectrum_distance(songs, self._real),
            "modulation_correlation": modulation_correlation(songs, self._real),
            "spread_ratio": spread(self._per_song(songs)) / self._spread,
            "repeats_percent": self._repeats(songs),
        }
        if self._classifier is not None and self._pairs is not None:
            figures |= self._measure_units(songs, self._classifier, self._pairs)
        return figures

    def _measure_units(
        self, songs: Sequence[Float32], classifier: SegmentClassifier, pairs: PairCounts
    ) -> dict[str, float]:
        sequences: list[list[int]] = []
        posteriors: list[float] = []
        for song in songs:
            found, certain = classifier(song, self._detector(song))
            sequences += found
            posteriors += certain
        table = pair_counts(sequences, len(classifier.units))
        above = np.array(posteriors) > CONFIDENT_POSTERIOR
        return {
            "sure_percent": 100 * float(above.mean()) if len(above) else 0.0,
            "transition_divergence_bits": divergence_bits(table, pairs),
            "transition_gain_nats": transition_gain_nats(table, pairs),
        }

    def _per_song(self, songs: Sequence[Float32]) -> list[Points]:
        return [self._space.project([song]) for song in songs]

    def _durations_of(self, songs: Sequence[Float32]) -> Any:
        lengths = [np.diff(self._detector(song), axis=1)[:, 0] for song in songs]
        return np.concatenate(lengths)

    def _repeats(self, songs: Sequence[Float32]) -> float:
        nearest = nearest_patch_distances(
            self._per_song(split_evenly(songs, _REPEAT_FRAMES))
        )
        return 100 * float((nearest < self._near).mean()) if len(nearest) else 0.0


def evaluate_synthesis(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    *,
    seconds: float,
    seed: int,
    against: str,
    watch: ProgressCallback,
    show: SongCallback = lambda name, songs: None,
) -> dict[str, Any]:
    """Measure a bundle's generated song beside real song and two baselines.

    Parameters
    ----------
    seconds : float
        Length of the song per row, in `N_SEQUENCES` sequences that each continue
        another stretch of known song.
    seed : int
        Seed of all draws.
    against : {'test', 'valid'}
        Recordings to compare with, see `split_dataset`.
    watch : callable
        Called with the completed share and the present step.
    show : callable
        Called with each row's name and songs, such as for a picture.

    Returns
    -------
    dict
        ``held_out``: measures of held-out song that need no comparison; ``rows``:
        measures of ``real`` song (known recordings), of drawn song by its feedback, of
        ``planned`` song where the bundle has a plan; of ``shuffled`` frames and of
        the linear process ``ar8``; ``planned_units``: `compare_units`, or None;
        ``order_0_divergence_bits``; and the compared data. A measure that is not
        defined is None.

    Raises
    ------
    ConfigError
        The bundle has no RNN-RBM, or the data are too few.
    """
    if bundle.manifest.rnn_rbm is None:
        raise ConfigError(f"bundle '{bundle.folder}' has no rnn_rbm to draw song from")
    parts = split_dataset(bundle, recordings, against)
    together = read_songs(
        bundle,
        [*parts.known, *parts.held_out],
        lambda share: watch(0.1 * share, "reading"),
    )
    n_known = len(parts.known)
    known, held_out = together[:n_known], together[n_known:]
    pairs = _pairs_of(bundle, parts.known)
    comparison = SongComparison(bundle, known, held_out, pairs)
    front_end = bundle.manifest.front_end
    wanted = seconds * front_end.sample_rate / front_end.hop_length
    n_frames = max(_REPEAT_FRAMES, round(wanted / N_SEQUENCES))
    rng = np.random.default_rng(seed)
    starts = choose_seeds(known, N_SEQUENCES, rng)
    real = [song.frames for song in known]
    rows: dict[str, dict[str, float]] = {}

    def add(name: str, songs: Sequence[Float32]) -> None:
        rows[name] = comparison(songs)
        show(name, songs)

    show("held-out", [song.frames for song in held_out])
    add("real", real)
    feedbacks: tuple[Feedback, ...] = get_args(Feedback)
    for number, feedback in enumerate(feedbacks):

        def report(share: float, number: int = number, name: str = feedback) -> None:
            watch(0.1 + 0.8 * (number + share) / len(feedbacks), f"drawing, {name}")

        drawn = generate_songs(bundle, feedback, starts, n_frames, seed, report)
        add(feedback, drawn)
    heard = None
    if bundle.manifest.plan is not None:
        songs, plans = draw_planned(
            bundle, N_SEQUENCES, n_frames, seed, lambda share: watch(0.9, "planned")
        )
        add("planned", songs)
        heard = compare_units(bundle, songs, plans)
    watch(0.9, "baselines")
    frames = [song.frames for song in held_out]
    add("shuffled", shuffle_frames(frames, n_frames, N_SEQUENCES, rng))
    add(f"ar{AR_ORDER}", LinearProcess.fit(real).draw(starts, n_frames, rng))
    watch(1.0, "")
    return {
        "against": against,
        "known_recordings": len(known),
        "held_out_recordings": len(held_out),
        "seconds": round(
            N_SEQUENCES * n_frames * front_end.hop_length / front_end.sample_rate, 1
        ),
        "seed": seed,
        "held_out": _json_values(_own_figures(comparison, held_out)),
        "planned_units": heard,
        "order_0_divergence_bits": None
        if pairs is None
        else _json_number(divergence_bits(independent_pairs(pairs), pairs)),
        "rows": {name: _json_values(figures) for name, figures in rows.items()},
    }


def _own_figures(
    comparison: SongComparison, held_out: Sequence[RecordedSong]
) -> dict[str, float]:
    """Return the measures of held-out song that need no comparison with it."""
    figures = comparison([song.frames for song in held_out])
    of_itself = ("frechet", "duration_ks", "spectrum", "modulation", "spread")
    return {k: v for k, v in figures.items() if not k.startswith(of_itself)}


def _pairs_of(bundle: Bundle, known: Sequence[AnnotatedRecording]) -> PairCounts | None:
    """Count the annotated transitions; None without a classifier or pairs."""
    spec = bundle.manifest.classifier
    if spec is None:
        return None
    units = [unit for unit in spec.units if unit != spec.silence]
    index = {unit: number for number, unit in enumerate(units)}
    pairs = pair_counts(unit_sequences(known, index), len(units))
    return pairs if pairs.sum() else None


def _json_values(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: _json_number(value) for name, value in figures.items()}


def _json_number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


_NAMES = {
    "frechet_distance": "Fréchet distance",
    "units_per_s": "units per second",
    "duration_median_ms": "median duration, ms",
    "duration_ks": "durations, KS",
    "spectrum_distance": "mean spectrum, RMS",
    "modulation_correlation": "modulation, corr.",
    "spread_ratio": "spread, of real",
    "repeats_percent": "repeats, %",
    "sure_percent": "sure labels, %",
    "transition_divergence_bits": "transitions, bits",
    "transition_gain_nats": "order, nats",
}


def print_quality(quality: dict[str, Any], console: Console | None = None) -> None:
    """Print a column for each kind of song, and a line with the compared data."""
    console = console or Console(highlight=False)
    table = Table(title="synthesis", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    columns = {"held-out": quality["held_out"], **quality["rows"]}
    for title in columns:
        # Two short lines take less room than a long one.
        table.add_column(title.replace("_", "\n"), justify="right", vertical="bottom")
    for key, name in _NAMES.items():
        cells = [figures.get(key) for figures in columns.values()]
        if any(cell is not None for cell in cells):
            table.add_row(name, *("" if c is None else f"{c:.3g}" for c in cells))
    console.print(table)
    bits = quality["order_0_divergence_bits"]
    console.print(
        f"{quality['seconds']:g} s drawn per column, seed {quality['seed']}; compared "
        f"with {quality['held_out_recordings']} held-out recordings "
        f"({quality['against']}); real: {quality['known_recordings']} known ones"
        + ("" if bits is None else f"; transitions in no order: {bits:.3g} bits"),
        markup=False,
    )
    if heard := quality["planned_units"]:
        console.print(
            f"planned: the classifier hears {heard['heard_percent']:g} % of "
            f"{heard['units']} units as planned",
            markup=False,
        )
