"""Measures of an RNN-RBM's predictions and states.

* `one_step_errors`: squared error of the next frame over all, voiced and silent frames;
* `SongRegressorTask`: the same recurrent part without an RBM, trained on that error;
* `decode`: accuracy of a linear read-out of the unit of each frame;
* `roc_auc`: separation of two kinds of sounds by a value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.training import RnnRbmTask
from neurovocal.models.toolkit.measures import IGNORED

Predictor = Callable[[Float32], Float32]


@dataclass(frozen=True, slots=True)
class StepErrors:
    """Mean squared error per value of a one-step prediction."""

    all: float
    voiced: float
    silent: float


def one_step_errors(
    predict: Predictor,
    songs: Sequence[Float32],
    voiced: Sequence[NDArray[np.bool_]],
    skip: int,
) -> StepErrors:
    """Compute the errors of predicting each frame from those before it.

    Parameters
    ----------
    predict : callable
        Frames float32[n, n_bins] to the expectation of the frame *after* each of
        them, float32[n, n_bins].
    songs : sequence of float32[n_frames, n_bins]
    voiced : sequence of bool[n_frames]
        Frames inside an annotated segment.
    skip : int
        First frames of each song that are left out, because states have not settled.
    """
    errors, inside = [], []
    for song, mask in zip(songs, voiced, strict=True):
        missed = np.square(predict(song)[skip - 1 : -1] - song[skip:])
        errors.append(missed.mean(axis=1, dtype=np.float64))
        inside.append(mask[skip:])
    error, mask = np.concatenate(errors), np.concatenate(inside)
    return StepErrors(
        float(error.mean()), float(error[mask].mean()), float(error[~mask].mean())
    )


class SongRegressorTask(RnnRbmTask):
    """Training of the recurrent part alone (W = 0) on the error of the next frame.

    A regressor of the same size: the same gated layer and read-out, batches and
    optimizer; its recipe needs `deterministic` phases.
    """

    name = "regressor"

    def _loss(self, v: Tensor, objective: str) -> Tensor:
        model, warm_up = self.module, self._config.warm_up
        u = model.states(v[:-1], model.initial_state(v.shape[1]))[warm_up:, -1]
        bv, _ = model.biases(u)
        predicted = bv if model.gaussian else torch.sigmoid(bv)
        return (predicted - v[1 + warm_up :]).square().sum(-1).mean()


@dataclass(frozen=True, slots=True)
class Decoding:
    """Shares of frames with a unit that a read-out predicts correctly, 0 to 1.

    `balanced` is the mean over units, silence included.
    """

    frame: float
    voiced: float
    balanced: float


def decode(
    train: Float32,
    train_units: NDArray[np.int64],
    test: Float32,
    test_units: NDArray[np.int64],
    n_units: int,
    l2: float = 1e-4,
    n_steps: int = 150,
) -> Decoding:
    """Multinomial logistic regression of each frame's unit on a feature of the frame.

    Features are standardized on the training frames; L-BFGS minimizes the mean cross
    entropy and ``l2 / 2`` times the squared weights. Frames of `IGNORED` units are
    left out.

    Parameters
    ----------
    train, test : float32[n_frames, n_features]
    train_units, test_units : int64[n_frames]
        Right answers, 0 being silence.
    n_units : int
    l2 : float
    n_steps : int
        Iterations of L-BFGS at most.
    """
    kept, counted = train_units != IGNORED, test_units != IGNORED
    mean, spread = train[kept].mean(0), train[kept].std(0) + 1e-6
    x = torch.from_numpy(((train[kept] - mean) / spread).astype(np.float32))
    y = torch.from_numpy(train_units[kept])
    weights = torch.zeros(x.shape[1], n_units, requires_grad=True)
    bias = torch.zeros(n_units, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=n_steps,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = functional.cross_entropy(torch.addmm(bias, x, weights), y)
        total = entropy + 0.5 * l2 * weights.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scaled = ((test[counted] - mean) / spread).astype(np.float32)
    with torch.no_grad():
        answered = (torch.from_numpy(scaled) @ weights + bias).argmax(1).numpy()
    wanted = test_units[counted]
    right = answered == wanted
    per_unit = [right[wanted == unit].mean() for unit in np.unique(wanted)]
    return Decoding(
        float(right.mean()), float(right[wanted > 0].mean()), float(np.mean(per_unit))
    )


def stack_frames(song: Float32, n: int) -> Float32:
    """Stack each frame with the `n` - 1 before it: float32[n_frames, n * n_bins].

    Frames before the first one are 0.
    """
    padded = np.concatenate([np.zeros((n - 1, song.shape[1]), np.float32), song])
    columns = [padded[n - 1 - lag : n - 1 - lag + len(song)] for lag in range(n)]
    return np.concatenate(columns, axis=1)


def roc_auc(own: Sequence[float], foreign: Sequence[float]) -> float:
    """Return the probability that a foreign value exceeds an own one; ties count 1/2.

    The area under the curve of hits against false alarms (Hanley and McNeil 1982).

    Raises
    ------
    ValueError
        One of the two is empty.
    """
    from scipy.stats import rankdata

    if not len(own) or not len(foreign):
        raise ValueError("an area under the curve needs values of both kinds")
    ranks = rankdata(np.concatenate([own, foreign]))
    n, m = len(own), len(foreign)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))
