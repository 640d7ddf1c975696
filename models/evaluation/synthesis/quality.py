"""The table of synthesis quality: real song, drawn song and two yardsticks."""

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
    gain_nats,
    largest_gap,
    modulation_correlation,
    order_0,
    pair_counts,
    spectrum_distance,
)
from neurovocal.models.evaluation.synthesis.patches import (
    PatchSpace,
    Points,
    frechet_distance,
    nearest_repeats,
    spread,
)
from neurovocal.models.evaluation.synthesis.references import (
    ORDER,
    LinearProcess,
    shuffled,
)
from neurovocal.models.evaluation.synthesis.songs import (
    SegmentClassifier,
    Song,
    cut_evenly,
    draw_songs,
    read_songs,
    starts_of,
    unit_sequences,
)
from neurovocal.models.toolkit.progress import ProgressCallback
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback

Show = Callable[[str, Sequence[Float32]], None]
N_SEQUENCES = 8
SURE = 0.9
_REPEAT_FRAMES = 1000  # repeats are searched in pieces of this length
_REPEAT_QUANTILE = 0.01


@dataclass(frozen=True, slots=True)
class Parts:
    """Recordings that the bundle was trained on, and those it never met."""

    known: list[AnnotatedRecording]
    held_out: list[AnnotatedRecording]


def parts_of(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording], against: str
) -> Parts:
    """Split a dataset as the bundle's manifest says.

    Where it names none of the recordings (another bird), every other recording
    stands for the known ones.

    Parameters
    ----------
    against : {'test', 'valid'}
        Which of the recordings that were not trained on song is compared with.

    Raises
    ------
    ConfigError
        One of the two parts would be empty.
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
    return Parts(known, held_out)


class Judge:
    """Compares songs with held-out real ones.

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
        known: Sequence[Song],
        held_out: Sequence[Song],
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
        pieces = self._per_song(cut_evenly([s.frames for s in known], _REPEAT_FRAMES))
        repeats = nearest_repeats(pieces)
        self._near = np.quantile(repeats, _REPEAT_QUANTILE) if len(repeats) else 0.0

    def __call__(self, songs: Sequence[Float32]) -> dict[str, float]:
        """All measures of some songs; docs/synthesis-quality.md explains them."""
        durations = self._durations_of(songs)
        seconds = sum(map(len, songs)) / self._frames_per_s
        median = float(np.median(durations)) if len(durations) else float("nan")
        figures = {
            "frechet_distance": frechet_distance(
                self._space.project(songs), self._points
            ),
            "units_per_s": len(durations) / seconds,
            "duration_median_ms": 1000 * median / self._frames_per_s,
            "duration_ks": largest_gap(durations, self._durations),
            "spectrum_distance": spectrum_distance(songs, self._real),
            "modulation_correlation": modulation_correlation(songs, self._real),
            "spread_ratio": spread(self._per_song(songs)) / self._spread,
            "repeats_percent": self._repeats(songs),
        }
        if self._classifier is not None and self._pairs is not None:
            figures |= self._judge_units(songs, self._classifier, self._pairs)
        return figures

    def _judge_units(
        self, songs: Sequence[Float32], classifier: SegmentClassifier, pairs: PairCounts
    ) -> dict[str, float]:
        sequences: list[list[int]] = []
        posteriors: list[float] = []
        for song in songs:
            found, sure = classifier(song, self._detector(song))
            sequences += found
            posteriors += sure
        table = pair_counts(sequences, len(classifier.units))
        above = np.array(posteriors) > SURE
        return {
            "sure_percent": 100 * float(above.mean()) if len(above) else 0.0,
            "transition_divergence_bits": divergence_bits(table, pairs),
            "transition_gain_nats": gain_nats(table, pairs),
        }

    def _per_song(self, songs: Sequence[Float32]) -> list[Points]:
        return [self._space.project([song]) for song in songs]

    def _durations_of(self, songs: Sequence[Float32]) -> Any:
        lengths = [np.diff(self._detector(song), axis=1)[:, 0] for song in songs]
        return np.concatenate(lengths)

    def _repeats(self, songs: Sequence[Float32]) -> float:
        nearest = nearest_repeats(self._per_song(cut_evenly(songs, _REPEAT_FRAMES)))
        return 100 * float((nearest < self._near).mean()) if len(nearest) else 0.0


def evaluate_synthesis(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    *,
    seconds: float,
    seed: int,
    against: str,
    watch: ProgressCallback,
    show: Show = lambda name, songs: None,
) -> dict[str, Any]:
    """Measure what a bundle sings beside real song and two yardsticks.

    Parameters
    ----------
    seconds : float
        Song to draw per row, in `N_SEQUENCES` sequences that each go on from
        another stretch of known song.
    seed : int
    against : {'test', 'valid'}
        Recordings to compare with, see `parts_of`.
    watch : callable
        Told the share that is done, and what is being done.
    show : callable
        Given each row's name and songs, such as for a picture.

    Returns
    -------
    dict
        ``held_out``: the measures that song has of itself; ``rows``: measures of
        ``real`` song (known recordings), of drawn song by its feedback, of
        ``shuffled`` frames and of the linear process ``ar8``;
        ``order_0_divergence_bits``; and what was compared. A measure that cannot
        be given is None.

    Raises
    ------
    ConfigError
        The bundle has no RNN-RBM, or the data are too few.
    """
    if bundle.manifest.rnn_rbm is None:
        raise ConfigError(f"bundle '{bundle.folder}' has no rnn_rbm to draw song from")
    parts = parts_of(bundle, recordings, against)
    together = read_songs(
        bundle,
        [*parts.known, *parts.held_out],
        lambda share: watch(0.1 * share, "reading"),
    )
    n_known = len(parts.known)
    known, held_out = together[:n_known], together[n_known:]
    pairs = _pairs_of(bundle, parts.known)
    judge = Judge(bundle, known, held_out, pairs)
    front_end = bundle.manifest.front_end
    wanted = seconds * front_end.sample_rate / front_end.hop_length
    n_frames = max(_REPEAT_FRAMES, round(wanted / N_SEQUENCES))
    rng = np.random.default_rng(seed)
    starts = starts_of(known, N_SEQUENCES, rng)
    real = [song.frames for song in known]
    rows: dict[str, dict[str, float]] = {}

    def add(name: str, songs: Sequence[Float32]) -> None:
        rows[name] = judge(songs)
        show(name, songs)

    show("held-out", [song.frames for song in held_out])
    add("real", real)
    feedbacks: tuple[Feedback, ...] = get_args(Feedback)
    for number, feedback in enumerate(feedbacks):

        def tell(share: float, number: int = number, name: str = feedback) -> None:
            watch(0.1 + 0.8 * (number + share) / len(feedbacks), f"drawing, {name}")

        drawn = draw_songs(bundle, feedback, starts, n_frames, seed, tell)
        add(feedback, drawn)
    watch(0.9, "yardsticks")
    frames = [song.frames for song in held_out]
    add("shuffled", shuffled(frames, n_frames, N_SEQUENCES, rng))
    add(f"ar{ORDER}", LinearProcess.fit(real).draw(starts, n_frames, rng))
    watch(1.0, "")
    return {
        "against": against,
        "known_recordings": len(known),
        "held_out_recordings": len(held_out),
        "seconds": round(
            N_SEQUENCES * n_frames * front_end.hop_length / front_end.sample_rate, 1
        ),
        "seed": seed,
        "held_out": _plain(_own_figures(judge, held_out)),
        "order_0_divergence_bits": None
        if pairs is None
        else _number(divergence_bits(order_0(pairs), pairs)),
        "rows": {name: _plain(figures) for name, figures in rows.items()},
    }


def _own_figures(judge: Judge, held_out: Sequence[Song]) -> dict[str, float]:
    """Measures of the song that is compared with, where they are not of itself."""
    figures = judge([song.frames for song in held_out])
    of_itself = ("frechet", "duration_ks", "spectrum", "modulation", "spread")
    return {k: v for k, v in figures.items() if not k.startswith(of_itself)}


def _pairs_of(bundle: Bundle, known: Sequence[AnnotatedRecording]) -> PairCounts | None:
    """The bird's annotated transitions, if the bundle has names for its units."""
    spec = bundle.manifest.classifier
    if spec is None:
        return None
    units = [unit for unit in spec.units if unit != spec.silence]
    index = {unit: number for number, unit in enumerate(units)}
    pairs = pair_counts(unit_sequences(known, index), len(units))
    return pairs if pairs.sum() else None


def _plain(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in figures.items()}


def _number(value: float) -> float | None:
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
    """Print a column for each kind of song, and a line on what was compared."""
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
