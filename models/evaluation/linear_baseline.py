"""Linear prediction of the next frame, as a baseline of the RNN-RBM."""

from collections.abc import Sequence

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import LabelledFrames, read_samples
from neurovocal.models.evaluation.evaluate import SKIPPED_FRAMES
from neurovocal.models.toolkit.measures import LinearPredictor
from neurovocal.models.toolkit.rows import ClippedRows

AR_ORDERS = (1, 4, 8)


def linear_errors(
    bundle: Bundle,
    fitted: Sequence[LabelledFrames],
    measured: Sequence[AnnotatedRecording],
    mse: float,
) -> dict[str, float]:
    """Measure AR(1), AR(4) and AR(8), fitted on some recordings, on others.

    Parameters
    ----------
    bundle : Bundle
        Its front end computes the frames.
    fitted : sequence of LabelledFrames
        Recordings of the training split.
    measured : sequence of AnnotatedRecording
        Recordings that the RNN-RBM was measured on.
    mse : float
        The RNN-RBM's squared error on the same frames, for the ratios.
    """
    train = [ClippedRows.select(example.frames) for example in fitted]
    predictors = {
        order: LinearPredictor.fit([s for s in train if len(s) > order], order)
        for order in AR_ORDERS
    }
    features = build_front_end(bundle.manifest.front_end, bundle)
    rate = bundle.manifest.front_end.sample_rate
    totals, count = dict.fromkeys(AR_ORDERS, 0.0), 0
    for recording in measured:
        song = frames_of(features, read_samples(recording, rate))
        n = len(song) - SKIPPED_FRAMES
        if n <= 0:
            continue
        count += n
        for order, predictor in predictors.items():
            totals[order] += n * predictor.squared_error([song], SKIPPED_FRAMES)
    measures = {}
    for order, total in totals.items():
        error = total / count if count else float("nan")
        measures[f"mse_ar{order}"] = round(error, 6)
        if error > 0:
            measures[f"mse_ratio_to_ar{order}"] = round(mse / error, 4)
    return measures
