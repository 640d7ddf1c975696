"""The yardstick of a linear prediction beside the RNN-RBM's."""

from neurovocal.engine.front_end import build_front_end, frames_of
from neurovocal.engine.manifest import Bundle
from neurovocal.models.evaluate import SKIPPED_FRAMES
from neurovocal.models.frames import read_samples
from neurovocal.models.measure import LinearPredictor
from neurovocal.models.prepare import Prepared
from neurovocal.models.rows import ClippedRows

AR_ORDERS = (1, 4, 8)


def linear_errors(bundle: Bundle, data: Prepared, mse: float) -> dict[str, float]:
    """Squared error of AR(order), fitted on training recordings, on the test split.

    Parameters
    ----------
    bundle : Bundle
        Its front end makes the frames.
    data : Prepared
    mse : float
        The RNN-RBM's error on the same frames, for the ratios.
    """
    train = [ClippedRows.of(material.frames) for material in data.train]
    features = build_front_end(bundle.manifest.front_end, bundle.folder)
    rate = bundle.manifest.front_end.sample_rate
    test = [frames_of(features, read_samples(r, rate)) for r in data.split.test]
    longer = [song for song in test if len(song) > SKIPPED_FRAMES]
    measures = {}
    for order in AR_ORDERS:
        songs = [song for song in train if len(song) > order]
        error = LinearPredictor.fit(songs, order).squared_error(longer, SKIPPED_FRAMES)
        measures[f"mse_ar{order}"] = round(error, 6)
        if error > 0:
            measures[f"mse_ratio_to_ar{order}"] = round(mse / error, 4)
    return measures
