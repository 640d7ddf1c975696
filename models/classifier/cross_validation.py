"""Training of a classifier on parts of the recordings, each left out once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neurovocal.models.classifier.calibration import log_softmax
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.split.folds import Folds
from neurovocal.models.toolkit.loop import History
from neurovocal.models.toolkit.measures import Float64


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidated:
    """Networks of a cross-validation, and what they say of recordings left out.

    Parameters
    ----------
    folds : Folds
        Which recordings were left out of the training of each network.
    examples : list of LabelledFrames
        All recordings that are not tested on, in the order that `folds` counts.
    networks : list of Classifier
        One per fold.
    histories : list of History
        Course of each training.
    """

    folds: Folds
    examples: list[LabelledFrames]
    networks: list[Classifier]
    histories: list[History]

    @property
    def left_out(self) -> list[LabelledFrames]:
        """Recordings that were left out once."""
        return [self.examples[number] for number in self.folds.left_out]

    def network_of(self, number: int) -> Classifier:
        """Return the network that was not trained on a recording, or the first."""
        for network, part in zip(self.networks, self.folds.parts, strict=True):
            if number in part:
                return network
        return self.networks[0]

    def log_posteriors(self, number: int) -> Float64:
        """Compute the log-posteriors of a recording, float64[n_frames, n_units]."""
        return log_posteriors_of(self.network_of(number), self.examples[number])

    @property
    def best_updates(self) -> int:
        """Return the median number of updates of the weights that were kept."""
        kept = [history.best_row["update"] for history in self.histories]
        return max(1, round(float(np.median(kept))))

    def history(self, last: History) -> History:
        """Return the mean course of the trainings, and the weights that are kept.

        Parameters
        ----------
        last : History
            Course of the training on all recordings.
        """
        rows = [
            {name: float(np.mean([row[name] for row in each])) for name in each[0]}
            for each in zip(*(h.rows for h in self.histories), strict=False)
        ]
        measures = [h.best_row for h in self.histories]
        best = {
            name: float(np.mean([m[name] for m in measures])) for name in measures[0]
        }
        return History(
            update=last.update,
            rows=rows,
            best_row=best | {"update": float(last.update)},
            finished=True,
            spent_s=last.spent_s + sum(h.spent_s for h in self.histories),
        )


def train_folds(
    folds: Folds,
    examples: Sequence[LabelledFrames],
    train: Callable[
        [int, list[LabelledFrames], list[LabelledFrames]], tuple[Classifier, History]
    ],
) -> CrossValidated:
    """Train one network per fold on the recordings of all others.

    Parameters
    ----------
    folds : Folds
        Recordings that are left out.
    examples : sequence of LabelledFrames
        All recordings.
    train : callable
        Trains a network: ``train(number of the fold, training, left out)``.
    """
    networks, histories = [], []
    for number, part in enumerate(folds.parts):
        absent = {*part}
        kept = [e for n, e in enumerate(examples) if n not in absent]
        network, history = train(number, kept, [examples[n] for n in part])
        network.eval()
        networks.append(network)
        histories.append(history)
    return CrossValidated(folds, [*examples], networks, histories)


def log_posteriors_of(model: Classifier, example: LabelledFrames) -> Float64:
    """Compute the log-posteriors of all frames, float64[n_frames, n_units]."""
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(example.clipped)[None])
    return log_softmax(logits[0].numpy())
