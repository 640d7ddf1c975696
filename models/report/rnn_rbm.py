"""Section of the RNN-RBM: measures, a song, activity and preferred sounds of units."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.report.classifier import extra_parts
from neurovocal.models.report.collector import Segment
from neurovocal.models.report.draw import FrameAxes
from neurovocal.models.report.examples import Stretch, unit_examples
from neurovocal.models.report.network import (
    NetworkTrace,
    TracedNetwork,
    Weights,
    read_weights,
)
from neurovocal.models.report.parts import Drawing, Part, Section
from neurovocal.models.report.rnn_rbm_figures import (
    continue_song,
    draw_activity,
    draw_filters,
    draw_preferences,
    draw_songs,
    draw_time_series,
)
from neurovocal.models.report.tables import measure_rows
from neurovocal.models.report.unit_preferences import (
    choose_dissimilar,
    rank_hidden_units,
    rank_recurrent_units,
    unit_preferences,
)
from neurovocal.models.report.windows import (
    Window,
    annotations_in,
    densest_window,
    frames_in,
    samples_in,
    window_length,
)

# Preferred sounds need many frames, but not hours of them.
_FRAMES_IN_ALL = 20_000
_UNITS = 12
_LEAD_FRAMES = 250  # processed before the shown frames, so that the state has settled
_SEED_SHARE = 0.3
_SEED = 0
_ANALYSIS = (
    "These pictures need the weights under the names that this project's training "
    "gives them; the graph of this bundle has others, or another meaning for them."
)


def rnn_rbm_section(
    bundle: Bundle,
    axes: FrameAxes,
    figures: Mapping[str, Any],
    recordings: Sequence[AnnotatedRecording],
    watch: Callable[[float], None],
) -> Section:
    """Return the section: measures, a song, activity and preferred sounds of units."""
    network = TracedNetwork(bundle)
    window = _choose_window(recordings, axes)
    lead_s = min(window.start_s, _LEAD_FRAMES * axes.hop_s)
    wide = Window(window.recording, window.start_s - lead_s, window.stop_s)
    trace = network(frames_in(bundle, wide))
    # The lead ends on the frame grid, not exactly at the start of the window.
    n_lead = round(lead_s / axes.hop_s)
    song = trace.slice(n_lead, len(trace.frames))
    shift_s = n_lead * axes.hop_s + axes.centre_s - axes.hop_s / 2
    segments = [
        Segment(a.onset_s - shift_s, a.offset_s - shift_s, a.unit, True)
        for a in annotations_in(wide)
        if a.offset_s > shift_s
    ]
    where = (
        f"{window.recording.file} from "
        f"{window.recording.start_s + window.start_s:.2f} s"
    )
    watch(0.2)
    weights = read_weights(bundle, trace)
    parts = [
        Part("Measures", measures=measure_rows(figures)),
        *extra_parts(figures),
    ]
    parts.append(_songs_part(bundle, axes, song, segments, weights, where))
    watch(0.4)
    parts.append(
        Part(
            "Surprise, free energy and biases",
            figures=[
                Drawing(
                    draw_time_series(axes, song, segments, weights),
                    f"{where}. The biases are what the recurrent state tells the RBM "
                    "about the next frame: where their range moves, the past counts.",
                )
            ],
        )
    )
    if weights is None:
        parts.append(Part("Learned features", _ANALYSIS))
    else:
        parts += _feature_parts(
            bundle, axes, network, recordings, song, segments, weights
        )
    watch(1.0)
    return Section(
        "rnn-rbm",
        "RNN-RBM",
        "",
        parts,
    )


def _choose_window(recordings: Sequence[AnnotatedRecording], axes: FrameAxes) -> Window:
    """Return the densest window of the recording with the most segments."""
    best = max(recordings, key=lambda r: len(r.own_annotations))
    shortest_s = 100 * axes.hop_s
    return densest_window(best, max(1.5 * window_length(recordings), shortest_s))


def _songs_part(
    bundle: Bundle,
    axes: FrameAxes,
    song: NetworkTrace,
    segments: list[Segment],
    weights: Weights | None,
    where: str,
) -> Part:
    rows: list[tuple[str, Float32]] = []
    if weights is not None:
        bv, bh = weights.biases(song.state_before[:, -1])
        reconstruction = weights.visible(weights.hidden(song.frames, bh), bv)
        rows.append(
            (
                "reconstructed: each frame through the hidden units and back",
                reconstruction,
            )
        )
    rows.append(
        ("expected: each frame as it was predicted from those before", song.prediction)
    )
    n_seed = max(1, round(_SEED_SHARE * len(song.frames)))
    drawn = continue_song(bundle, song, n_seed, _SEED)
    rows.append(("generated: heard up to the dashed line, then drawn", drawn))
    return Part(
        "A song",
        figures=[
            Drawing(
                draw_songs(axes, song, segments, rows, n_seed * axes.hop_s),
                f"{where}. Drawn with the engine's sampler: feedback mean_residual, "
                f"temperature 1, seed {_SEED}.",
            )
        ],
    )


def _feature_parts(
    bundle: Bundle,
    axes: FrameAxes,
    network: TracedNetwork,
    recordings: Sequence[AnnotatedRecording],
    song: NetworkTrace,
    segments: list[Segment],
    weights: Weights,
) -> list[Part]:
    """Return filters, activity and preferred sounds of units, from many songs."""
    names = ["", *sorted({a.unit for r in recordings for a in r.annotations})]
    songs, targets, stretches = _trace_recordings(
        bundle, axes, network, recordings, names
    )
    if not songs:
        songs, targets = [song], [_no_units(song)]
    hidden = [_hidden_activity(weights, each) for each in songs]
    states = [each.state_after[:, -1] for each in songs]
    n_frames = sum(len(each.frames) for each in songs)
    order = rank_hidden_units(weights, np.concatenate(hidden))
    order_u = rank_recurrent_units(weights, np.concatenate(states))
    caption = (
        "The units that move the picture most, those left out whose activity is nearly "
        f"that of one before (correlation above 0.9), over {n_frames:,} frames. "
        "Colours: the average spectrogram up to the moments when the unit is strongly "
        "active, less the average of all frames (red is more, blue is less). Above: "
        "the syllable that the unit tells best from everything else, frame by frame, "
        "as area under the ROC curve (0.5 is chance; below it, the unit falls with the "
        "syllable). The best of many syllables is chosen on the same frames: small "
        "differences from 0.5 mean nothing. Below, per unit: the sounds in these "
        "recordings to which it answered most, with its activity at the line."
    )
    chosen = choose_dissimilar(np.concatenate(hidden), order, _UNITS)
    chosen_u = choose_dissimilar(np.concatenate(states), order_u, _UNITS)
    by_hidden = unit_preferences(songs, hidden, targets, names, chosen)
    by_state = unit_preferences(songs, states, targets, names, chosen_u)
    rate = bundle.manifest.front_end.sample_rate
    heard = (
        unit_examples(axes, rate, "h", chosen, hidden, stretches) if stretches else []
    )
    return [
        Part(
            "Filters of W",
            "What each hidden unit adds to the picture when it is on (red) or takes "
            "from it (blue); the units that move the picture most.",
            [Drawing(draw_filters(axes, weights, order), "")],
        ),
        Part(
            "Activity over the song",
            figures=[
                Drawing(
                    draw_activity(
                        axes, song, segments, _hidden_activity(weights, song)[:, order]
                    ),
                    "Hidden units answer to the frame, recurrent units remember.",
                )
            ],
        ),
        Part(
            "What each hidden unit listens to",
            figures=[Drawing(draw_preferences(axes, "h", by_hidden), caption), *heard],
        ),
        Part(
            "What each recurrent unit listens to",
            figures=[
                Drawing(
                    draw_preferences(axes, "u", by_state),
                    "The same for the recurrent units that move the biases most.",
                )
            ],
        ),
    ]


def _hidden_activity(weights: Weights, song: NetworkTrace) -> Float32:
    _, bh = weights.biases(song.state_before[:, -1])
    return weights.hidden(song.frames, bh)


def _no_units(song: NetworkTrace) -> NDArray[np.int64]:
    return np.zeros(len(song.frames), np.int64)


def _trace_recordings(
    bundle: Bundle,
    axes: FrameAxes,
    network: TracedNetwork,
    recordings: Sequence[AnnotatedRecording],
    names: list[str],
) -> tuple[list[NetworkTrace], list[NDArray[np.int64]], list[Stretch]]:
    """Trace dense windows of the recordings; return also units of frames and sound."""
    n_each = max(1000, _FRAMES_IN_ALL // len(recordings))
    features = build_front_end(bundle.manifest.front_end, bundle)
    songs, targets, stretches, count = [], [], [], 0
    for recording in recordings:
        if count >= _FRAMES_IN_ALL:
            break
        window = densest_window(recording, n_each * axes.hop_s)
        samples = samples_in(bundle, window)
        frames = frames_of(features, samples)
        if len(frames) < 2:
            continue
        songs.append(network(frames))
        target = _units_of_frames(axes, len(frames), annotations_in(window), names)
        targets.append(target)
        start_s = recording.start_s + window.start_s
        units = [names[unit] for unit in target]
        stretches.append(Stretch(recording.file, start_s, samples, frames, units))
        count += len(frames)
    return songs, targets, stretches


def _units_of_frames(
    axes: FrameAxes, n_frames: int, annotations: list[Annotation], names: list[str]
) -> NDArray[np.int64]:
    """Return the unit at each frame's centre, as an index into `names`."""
    target = np.zeros(n_frames, np.int64)
    for a in annotations:
        target[axes.frame_at(a.onset_s) : axes.frame_at(a.offset_s)] = names.index(
            a.unit
        )
    return target
