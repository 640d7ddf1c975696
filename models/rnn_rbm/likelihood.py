r"""Log-likelihood of frames as a bracket, and expected accuracy of predicted frames.

The lower end of a bracket uses the overestimated partition function (the worse of two
estimates), its upper end the underestimated one
(`neurovocal.models.rnn_rbm.annealing`). A bracket that is too wide raises an error.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.annealing import (
    AnnealingOptions,
    ConditionalRbms,
    LikelihoodError,
    UnitSampler,
    draw_annealed,
    gibbs,
    log_partition,
)
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.tempering import TemperingOptions, draw_tempered

MAX_WIDTH = 0.3
_TILE_ROWS = 1024
_MAX_EQUAL_RBMS = 512


@dataclass(frozen=True, slots=True)
class Bracket:
    """Lower and upper estimate of a log-likelihood, in nats."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Absolute difference of the two ends, in nats."""
        return abs(self.high - self.low)

    @property
    def middle(self) -> float:
        """Mean of the two ends."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Mean log-likelihood per frame, in nats.

    Parameters
    ----------
    bracket : Bracket
        Lower and upper estimate.
    standard_error : float
        Standard error of the mean over frames, under the assumption that they are
        independent.
    n_frames : int
        Number of frames.
    """

    bracket: Bracket
    standard_error: float
    n_frames: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Expected accuracy of frames that are drawn from a model, 0 to 1.

    R units are on in the reference frame, S in the drawn frame and C in both.

    Parameters
    ----------
    replaced_once : float
        Mean over frames of C / max(R, S): a replaced note counts as one error. It is
        the accuracy of Boulanger-Lewandowski et al. (2012);
        docs/research/polyphonic.md tells why.
    replaced_twice : float
        Mean over frames of TP / (TP + FP + FN) = C / (R + S - C): a replaced note
        counts as a deletion and an insertion.
    pooled : float
        Sum over frames of C divided by the sum of R + S - C (Bay et al. 2009).
    """

    replaced_once: float
    replaced_twice: float
    pooled: float


@torch.no_grad()
def conditional_rbms(
    model: RnnRbm, rolls: Sequence[Float32]
) -> tuple[ConditionalRbms, Tensor, Tensor]:
    """Compute the RBM of each frame of all sequences, given the frames before it.

    Parameters
    ----------
    model : RnnRbm
        Model with Bernoulli units; its dropout is switched off.
    rolls : sequence of float32[n_frames, n_visible]
        Sequences of values 0 and 1, each from the initial state.

    Returns
    -------
    rbms : ConditionalRbms
    frames, previous : float32[n_all_frames, n_visible]
        All frames in order, and the frame before each; zeros before the first.

    Raises
    ------
    LikelihoodError
        The units are Gaussian, a value is neither 0 nor 1 (a Bernoulli unit has no
        density there), or there is no frame.
    """
    if model.gaussian:
        raise LikelihoodError(
            "this likelihood is for Bernoulli visible units, and the model's are "
            "Gaussian"
        )
    training = model.training
    model.eval()
    try:
        parts = [_conditional_biases(model, roll) for roll in rolls if len(roll)]
    finally:
        model.train(training)
    if not parts:
        raise LikelihoodError("there is no frame to compute a likelihood of")
    bv, bh, frames, previous = (
        torch.cat(column) for column in zip(*parts, strict=True)
    )
    return ConditionalRbms(model.W.detach(), bv, bh), frames, previous


def log_likelihood(
    rbms: ConditionalRbms,
    frames: Tensor,
    annealing: AnnealingOptions,
    rng: np.random.Generator,
    max_width: float | None = MAX_WIDTH,
) -> Likelihood:
    """Estimate the mean log-likelihood of frames, each under its own RBM.

    Parameters
    ----------
    rbms : ConditionalRbms
        RBM of each frame.
    frames : float32[n_frames, n_visible]
        Frames of values 0 and 1.
    annealing : AnnealingOptions
        Effort of the estimate.
    rng : Generator
        Source of random numbers.
    max_width : float, optional
        Largest width of the bracket in nats; None accepts any width, as for a
        choice between models.

    Raises
    ------
    LikelihoodError
        The bracket is wider than `max_width`.
    """
    sampler = UnitSampler(rng)
    weight = rbms.log_weight(frames)
    n = len(frames)
    if _all_equal(rbms) and n > _MAX_EQUAL_RBMS:
        # Equal RBMs have the same partition function: some estimates are enough.
        n = _MAX_EQUAL_RBMS
    some = torch.arange(n) * len(frames) // n
    estimates = [
        torch.stack(
            log_partition(rbms[some[rows]], frames[some[rows]], annealing, sampler)
        )
        for rows in _tiles(n, max(1, _TILE_ROWS // annealing.n_chains))
    ]
    up, down, down_again = torch.cat(estimates, dim=1)
    if n < len(frames):
        up, down, down_again = up.mean(), down.mean(), down_again.mean()
    high = weight - up
    low = min(float((weight - down).mean()), float((weight - down_again).mean()))
    bracket = Bracket(low, float(high.mean()))
    if max_width is not None and not bracket.width <= max_width:
        raise LikelihoodError(width_error(bracket, annealing.n_temperatures, max_width))
    error = float(high.std()) / math.sqrt(len(high)) if len(high) > 1 else math.nan
    return Likelihood(bracket, error, len(high))


@torch.no_grad()
def expected_accuracy(
    rbms: ConditionalRbms,
    frames: Tensor,
    previous: Tensor,
    rng: np.random.Generator,
    n_steps: int = 50,
    n_samples: int = 20,
    annealing: AnnealingOptions | TemperingOptions | None = None,
) -> Accuracy:
    """Estimate the expected accuracy of predicted frames, given the true past.

    Each prediction is a sample after `n_steps` block Gibbs steps from the previous
    frame, as in Boulanger-Lewandowski, Bengio and Vincent (ICML 2012). On a strong
    model these steps do not reach its distribution; `annealing` then samples by
    annealing or by parallel tempering instead.

    Parameters
    ----------
    rbms : ConditionalRbms
        RBM of each frame.
    frames, previous : float32[n_frames, n_visible]
        True frames, and the frame before each.
    rng : Generator
        Source of random numbers.
    n_steps, n_samples : int
        Gibbs steps per sample, samples per frame.
    annealing : AnnealingOptions or TemperingOptions, optional
        Sampling method that replaces the Gibbs steps.
    """
    sampler = UnitSampler(rng)
    counts = []
    for rows in _tiles(len(frames), _TILE_ROWS):
        part, start, expected = rbms[rows], previous[rows], frames[rows]
        for _ in range(n_samples):
            if annealing is None:
                drawn = gibbs(part, start, n_steps, sampler)
            elif isinstance(annealing, TemperingOptions):
                drawn = draw_tempered(part, start, annealing, sampler)
            else:
                drawn = draw_annealed(part, start, annealing, sampler)
            counts.append(match_counts(drawn, expected))
    return accuracy_of(torch.cat(counts))


def match_counts(drawn: Tensor, expected: Tensor) -> Tensor:
    """Count units on in both frames, in `drawn` and in `expected`: float64[n, 3]."""
    both = drawn * expected
    sums = [x.sum(-1, dtype=torch.float64) for x in (both, drawn, expected)]
    return torch.stack(sums, dim=1)


def accuracy_of(counts: Tensor) -> Accuracy:
    """Compute accuracies from the counts of `match_counts`.

    Silence that is predicted as silence has accuracy 1.
    """
    both, drawn, expected = counts.unbind(1)
    once = torch.maximum(drawn, expected)
    twice = drawn + expected - both
    right = torch.ones_like(both)
    return Accuracy(
        float(torch.where(once > 0, both / once.clamp_min(1), right).mean()),
        float(torch.where(twice > 0, both / twice.clamp_min(1), right).mean()),
        float(both.sum() / twice.sum().clamp_min(1)),
    )


def _conditional_biases(
    model: RnnRbm, roll: Float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return visible and hidden biases, frames and previous frames of a sequence."""
    v = torch.from_numpy(np.ascontiguousarray(roll, np.float32))
    if not bool(((v == 0) | (v == 1)).all()):
        raise LikelihoodError(
            "the frames hold values other than 0 and 1, at which a Bernoulli unit has "
            "no density: round them first, or use Gaussian units"
        )
    start = model.initial_state()
    after = model.states(v[:-1, None], start)[:, -1, 0] if len(v) > 1 else v[:0, :0]
    u = start[-1] if len(v) == 1 else torch.cat([start[-1], after])
    bv, bh = model.biases(u)
    return bv, bh, v, torch.cat([torch.zeros_like(v[:1]), v[:-1]])


def _all_equal(rbms: ConditionalRbms) -> bool:
    """Return True if all RBMs have the same biases."""
    return all(bool((b == b[:1]).all()) for b in (rbms.bv, rbms.bh))


def _tiles(n: int, size: int) -> Iterator[slice]:
    """Yield slices of up to `size` rows, which fit into the processor's cache."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def width_error(bracket: Bracket, n_temperatures: int, max_width: float) -> str:
    """Return the sentence for a bracket that is too wide, with a suggestion."""
    # The width is finally proportional to one over the number of temperatures.
    needed = n_temperatures * bracket.width / max_width * 1.25
    more = (
        f"try {math.ceil(needed / 100) * 100} temperatures instead of {n_temperatures}"
        if math.isfinite(needed)
        else "the model's weights are not finite"
    )
    return (
        f"log-likelihood is somewhere between {bracket.low:.2f} and "
        f"{bracket.high:.2f} nats, a bracket wider than {max_width:g}: {more}"
    )
