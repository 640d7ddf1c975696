"""Accuracy of a bundle on annotated recordings, computed by the engine's lane."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle, FrontEnd
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32, Label
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.engine.support.text import plain
from neurovocal.models.classifier.calibration import score_segment
from neurovocal.models.classifier.forecast.evaluation import evaluate_forecast
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import read_samples
from neurovocal.models.data.targets import (
    FrameGrid,
    Units,
    first_frame,
    targets_of,
)
from neurovocal.models.evaluation.label_latency import measure_label_latency
from neurovocal.models.evaluation.labelling import (
    BundleOf,
    EvaluatedRecording,
    Labellers,
)
from neurovocal.models.toolkit.measures import (
    IGNORED,
    ErrorCount,
    confusion,
    edit_distance,
    frame_errors,
    unit_runs,
)
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.models.toolkit.segment_scores import SegmentScore, score_segments

TOLERANCE_S = 0.010
# First frames of a recording without a measured prediction: the state is not settled.
SKIPPED_FRAMES = 16
# Labels in time are computed frame by frame: of a cross-validation, for this long.
_MOST_TIMED_S = 120.0
_MOST_UNITS = 5
# What the record of a training adds to the name of a recording that was split.
_TIMES = re.compile(r" from \d+\.\d{3} to \d+\.\d{3} s$")
ShareCallback = Callable[[float], None]
RecordingObserver = Callable[[EvaluatedRecording], None]


def units_of(bundle: Bundle, recordings: Sequence[AnnotatedRecording]) -> Units:
    """Map the labels of a dataset to outputs of the bundle's classifier.

    A label that the bundle does not have is left out of all measures.

    Raises
    ------
    ConfigError
        The bundle has none of the labels.
    """
    spec = bundle.manifest.classifier
    if spec is None:
        return Units([""], {})
    # Measures count silence as output 0, wherever the bundle has it.
    names = [spec.silence, *(u for u in spec.units if u != spec.silence)]
    labels = {a.unit for r in recordings for a in r.annotations}
    index = {u: names.index(u) if u in names else IGNORED for u in labels}
    if labels and all(position <= 0 for position in index.values()):
        raise ConfigError(
            f"the bundle knows none of the dataset's labels: it has "
            f"{', '.join(names[1:])}; the dataset has {', '.join(sorted(labels))}"
        )
    return Units(names, index)


def left_out_notes(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording]
) -> list[str]:
    """Return a sentence on labels that are left out of the measures, with numbers.

    Raises
    ------
    ConfigError
        The bundle has none of the labels.
    """
    if bundle.manifest.classifier is None:
        return []
    units = units_of(bundle, recordings)
    counts = Counter(a.unit for r in recordings for a in r.own_annotations)
    absent = {u: n for u, n in counts.most_common() if units.index[u] == IGNORED}
    if not absent:
        return []
    shown = ", ".join(f"'{unit}' ({n})" for unit, n in [*absent.items()][:_MOST_UNITS])
    more = len(absent) - _MOST_UNITS
    rest = f" and {more} more" if more > 0 else ""
    return [
        f"{sum(absent.values())} of {sum(counts.values())} segments are left out of "
        f"the measures, for their labels are no units of the bundle: {shown}{rest}"
    ]


def trained_notes(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording]
) -> list[str]:
    """Return a sentence if the bundle was trained on recordings of the same names.

    A bundle knows the names of its training's recordings, not their content.
    """
    known = bundle.manifest.training.get("recordings")
    parts = known if isinstance(known, dict) else {}
    names = {
        PurePosixPath(_TIMES.sub("", name)).name
        for part in ("train", "valid")
        for name in parts.get(part, ())
        if isinstance(name, str)
    }
    heard = [r.file for r in recordings if PurePosixPath(plain(r.file)).name in names]
    if not heard:
        return []
    return [
        f"{len(heard)} of {len(recordings)} recordings have names of recordings that "
        f"this bundle was trained on, such as '{heard[0]}': their figures are better "
        "than those of new recordings"
    ]


def short_problems(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording]
) -> list[str]:
    """Return a sentence if all recordings are too short for the RNN-RBM's measures."""
    front_end = bundle.manifest.front_end
    grid = FrameGrid(
        front_end.sample_rate, front_end.hop_length, front_end.frame_length
    )
    longest = max(map(grid.n_frames, recordings), default=0)
    if bundle.manifest.rnn_rbm is None or longest > SKIPPED_FRAMES:
        return []
    return [
        f"the recordings are too short to predict a frame of them: the longest has "
        f"{longest} frames, more than {SKIPPED_FRAMES} are needed"
    ]


def evaluate_bundle(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    watch: ShareCallback = lambda share: None,
    observe: RecordingObserver = lambda evaluated: None,
    fold_of: BundleOf | None = None,
    unseen: Sequence[AnnotatedRecording] = (),
) -> dict[str, Any]:
    """Measure a bundle on annotated recordings.

    Parameters
    ----------
    bundle : Bundle
    recordings : sequence of AnnotatedRecording
    watch : callable
        Called with the completed share.
    observe : callable
        Called with each recording, its labels and posteriors.
    fold_of : callable, optional
        Maps a recording to the bundle whose classifier labels it, in a
        cross-validation; None: `bundle` labels all. There are no figures of the
        forecast then.
    unseen : sequence of AnnotatedRecording
        With `fold_of`: recordings that the RNN-RBM is measured on.

    Returns
    -------
    dict
        Plain numbers, ready for JSON: `recordings`, `seconds`, and per model the
        measures of docs/how-to/training.md.
    """
    units = units_of(bundle, recordings)
    figures: dict[str, Any] = {
        "recordings": len(recordings),
        "seconds": round(sum(r.part_duration_s for r in recordings), 1),
    }
    manifest, bundle_of = bundle.manifest, fold_of or (lambda recording: bundle)
    label_share = 0.7 if manifest.rnn_rbm and manifest.classifier else 1.0
    if manifest.classifier is not None:
        figures["classifier"] = _evaluate_classifier(
            bundle,
            bundle_of,
            recordings,
            units,
            lambda share: watch(share * label_share / 3),
            observe,
        )
        timed = recordings if fold_of is None else _first(recordings, _MOST_TIMED_S)
        figures["label_in_time"] = measure_label_latency(
            bundle,
            timed,
            units,
            lambda share: watch((1 + 2 * share) * label_share / 3),
            bundle_of,
        )
    if manifest.forecast is not None and fold_of is None:
        figures["forecast"] = evaluate_forecast(bundle, recordings, units)
    if manifest.rnn_rbm is not None:
        figures["rnn_rbm"] = _evaluate_rnn_rbm(
            bundle,
            unseen if fold_of else recordings,
            lambda share: watch(1 - (1 - share) * label_share),
        )
    return figures


def _first(
    recordings: Sequence[AnnotatedRecording], limit_s: float
) -> list[AnnotatedRecording]:
    """Return recordings from the first on, until they have `limit_s` seconds."""
    taken: list[AnnotatedRecording] = []
    while len(taken) < len(recordings) and (
        sum(r.part_duration_s for r in taken) < limit_s
    ):
        taken.append(recordings[len(taken)])
    return taken


def _evaluate_classifier(
    bundle: Bundle,
    bundle_of: BundleOf,
    recordings: Sequence[AnnotatedRecording],
    units: Units,
    watch: ShareCallback,
    observe: RecordingObserver,
) -> dict[str, Any]:
    front_end, spec = bundle.manifest.front_end, bundle.manifest.classifier
    assert spec is not None
    columns = [spec.units.index(name) for name in units.names]
    labellers = Labellers(bundle_of)
    frames, final, inside, detected, raw = (ErrorCount() for _ in range(5))
    unknown, segments = ErrorCount(), SegmentScore(0, 0, 0)
    true: list[int] = []
    given: list[int] = []
    for number, recording in enumerate(recordings):
        samples = read_samples(recording, front_end.sample_rate)
        labelled = labellers.of(recording)(samples)
        posteriors = labelled.posteriors[:, columns]
        target, spans = targets_of(
            recording,
            units,
            len(posteriors),
            front_end.sample_rate,
            front_end.hop_length,
            front_end.frame_length,
        )
        likeliest: NDArray[np.int64] = posteriors.argmax(axis=1)
        frames += frame_errors(target, likeliest)
        known = [label for label in labelled.labels if label.unit != spec.unknown]
        final += frame_errors(
            target, _units_of_frames(known, units, len(target), front_end)
        )
        reference = [span.unit for span in spans]
        found_raw = edit_distance(reference, unit_runs(likeliest, target))
        raw += ErrorCount(found_raw, len(reference))
        logs = np.log(np.maximum(posteriors.astype(np.float64), 1e-30))
        voted = [
            1 + int(score_segment(logs, s, spec.decision)[1:].argmax()) for s in spans
        ]
        true += reference
        given += voted
        wrong = sum(a != b for a, b in zip(reference, voted, strict=True))
        inside += ErrorCount(wrong, len(reference))
        kept = _without_unsure_segments(
            labelled.labels, recording, units, front_end.sample_rate
        )
        names = [units.names[unit] for unit in reference]
        # `unknown` is the right answer to a sound that is no syllable, and a
        # missing label where it is one.
        named = [label.unit for label in kept if label.unit != spec.unknown]
        detected += ErrorCount(edit_distance(names, named), len(names))
        unsure = sum(label.unit == spec.unknown for label in kept)
        unknown += ErrorCount(unsure, len(kept))
        segments += score_segments(
            [
                (a.onset_s - recording.start_s, a.offset_s - recording.start_s)
                for a in recording.own_annotations
            ],
            [_times_s(label, front_end.sample_rate) for label in labelled.labels],
            TOLERANCE_S,
        )
        observe(EvaluatedRecording(recording, labelled.labels, posteriors, target))
        watch((number + 1) / len(recordings))
    table = confusion(np.array(true, int), np.array(given, int), len(units.names))
    return {
        "frame_error_percent": _rounded(frames.percent),
        "frame_error_final_percent": _rounded(final.percent),
        "syllable_error_percent": _rounded(detected.percent),
        "syllable_error_in_true_segments_percent": _rounded(inside.percent),
        "syllable_error_without_detector_percent": _rounded(raw.percent),
        "unknown_percent": _rounded(unknown.percent),
        "reference_syllables": inside.total,
        "segments_f1_10ms": _rounded(segments.f1, 4),
        "segments_precision_10ms": _rounded(segments.precision, 4),
        "segments_recall_10ms": _rounded(segments.recall, 4),
        "units": list(units.names[1:]),
        "confusion": table[1:, 1:].tolist(),
    }


def _units_of_frames(
    labels: Sequence[Label], units: Units, n_frames: int, front_end: FrontEnd
) -> NDArray[np.int64]:
    """Return the unit of each frame: the label of the segment that it is centred in."""
    unit = np.zeros(n_frames, np.int64)
    hop, length = front_end.hop_length, front_end.frame_length
    for label in labels:
        offset = label.onset if label.offset is None else label.offset
        first = max(first_frame(label.onset, hop, length), 0)
        unit[first : max(first_frame(offset, hop, length), 0)] = units.names.index(
            label.unit
        )
    return unit


def _without_unsure_segments(
    labels: Sequence[Label],
    recording: AnnotatedRecording,
    units: Units,
    sample_rate: int,
) -> list[Label]:
    """Return the labels outside of annotations without a unit of the bundle."""
    unsure = [
        (a.onset_s - recording.start_s, a.offset_s - recording.start_s)
        for a in recording.annotations
        if units.index.get(a.unit, IGNORED) == IGNORED
    ]
    kept = []
    for label in labels:
        onset_s, offset_s = _times_s(label, sample_rate)
        middle_s = (onset_s + offset_s) / 2
        before = bisect_right(unsure, middle_s, key=lambda times: times[0])
        if not before or unsure[before - 1][1] <= middle_s:
            kept.append(label)
    return kept


def _evaluate_rnn_rbm(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording], watch: ShareCallback
) -> dict[str, Any]:
    """Return the squared error of the next frame, that of persistence, free energy."""
    spec, front_end = bundle.manifest.rnn_rbm, bundle.manifest.front_end
    assert spec is not None
    session = Session(bundle.path(spec.file))
    features = build_front_end(front_end, bundle)
    zeros = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)
    error, persistence, energy, count = 0.0, 0.0, 0.0, 0
    voiced_error, voiced_persistence, voiced_count = 0.0, 0.0, 0
    for number, recording in enumerate(recordings):
        frames = frames_of(features, read_samples(recording, front_end.sample_rate))
        if len(frames) <= SKIPPED_FRAMES:
            continue
        scored = session.run(frames=frames, u=zeros)
        now = frames[SKIPPED_FRAMES:]
        errors = np.square(scored["prediction"][SKIPPED_FRAMES - 1 : -1] - now).mean(1)
        repeated = np.square(frames[SKIPPED_FRAMES - 1 : -1] - now).mean(1)
        voiced = _voiced(recording, frames, bundle)[SKIPPED_FRAMES:]
        error += float(errors.sum())
        persistence += float(repeated.sum())
        voiced_error += float(errors[voiced].sum())
        voiced_persistence += float(repeated[voiced].sum())
        voiced_count += int(voiced.sum())
        energy += float(scored["free_energy"][SKIPPED_FRAMES:].sum())
        count += len(now)
        watch((number + 1) / len(recordings))
    if not count:
        raise ConfigError("the recordings are too short to predict a frame of them")
    figures = {
        "mse": _rounded(error / count, 6),
        "mse_persistence": _rounded(persistence / count, 6),
        "mse_ratio_to_persistence": _rounded(error / persistence, 4)
        if persistence
        else None,
        "free_energy_mean": _rounded(energy / count, 3),
    }
    if voiced_count:
        figures["mse_voiced"] = _rounded(voiced_error / voiced_count, 6)
        figures["mse_voiced_persistence"] = _rounded(
            voiced_persistence / voiced_count, 6
        )
    return figures


def _voiced(
    recording: AnnotatedRecording, frames: Float32, bundle: Bundle
) -> NDArray[np.bool_]:
    """Return which frames have their centre in an annotated segment of any unit."""
    front_end = bundle.manifest.front_end
    any_unit = Units([""], {a.unit: 1 for a in recording.own_annotations})
    target, _ = targets_of(
        recording,
        any_unit,
        len(frames),
        front_end.sample_rate,
        front_end.hop_length,
        front_end.frame_length,
    )
    return target > 0


def _times_s(label: Label, sample_rate: int) -> tuple[float, float]:
    offset = label.onset if label.offset is None else label.offset
    return label.onset / sample_rate, offset / sample_rate


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
