r"""Log-likelihoods that can be believed, and expected accuracies.

A log-likelihood is told as a bracket: its lower end uses the partition function from
above (the worse of two estimates), its upper end the one from below
(`neurovocal.models.rnn_rbm.annealing`). A bracket that is too wide is no figure and is
refused.
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
_ENOUGH_ALIKE = 512


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where a log-likelihood lies, in nats."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """How far the two ends are apart, in nats."""
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
    standard_error : float
        Of the mean over frames, were they independent: how another choice of
        frames would change it.
    n_frames : int
        Frames that were measured.
    """

    bracket: Bracket
    standard_error: float
    n_frames: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Expected accuracy of frames that are drawn from a model, 0 to 1.

    With R units on in the frame, S in the drawn one and C in both:

    Parameters
    ----------
    replaced_once : float
        Mean over frames of C / max(R, S): a note in another's place is one error.
        This is what Boulanger-Lewandowski et al. (2012) report (docs/polyphonic.md).
    replaced_twice : float
        Mean over frames of TP / (TP + FP + FN) = C / (R + S - C): such a note is
        missed and also inserted.
    pooled : float
        Sum over frames of C over the sum of R + S - C (Bay et al. 2009).
    """

    replaced_once: float
    replaced_twice: float
    pooled: float


@torch.no_grad()
def conditional_rbms(
    model: RnnRbm, rolls: Sequence[Float32]
) -> tuple[ConditionalRbms, Tensor, Tensor]:
    """The RBM of every frame of every sequence, given the frames before it.

    Parameters
    ----------
    model : RnnRbm
        With Bernoulli units; used without its dropout.
    rolls : sequence of float32[n_frames, n_visible]
        Values 0 and 1. Each starts from the initial state.

    Returns
    -------
    rbms : ConditionalRbms
    frames, previous : float32[n_all_frames, n_visible]
        All frames in order, and the frame before each, silence at a start.

    Raises
    ------
    LikelihoodError
        The units are Gaussian, or values are neither 0 nor 1: a Bernoulli unit
        has no density at a grey value.
    """
    if model.gaussian:
        raise LikelihoodError(
            "this likelihood is for Bernoulli visible units, and the model's are "
            "Gaussian"
        )
    training = model.training
    model.eval()
    try:
        parts = [_one_roll(model, roll) for roll in rolls if len(roll)]
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
    widest: float | None = MAX_WIDTH,
) -> Likelihood:
    """Mean log-likelihood of frames, each under its own RBM.

    Parameters
    ----------
    rbms : ConditionalRbms
    frames : float32[n_frames, n_visible]
        Values 0 and 1.
    annealing : AnnealingOptions
    rng : Generator
    widest : float, optional
        Widest bracket in nats that is a figure; None takes any, for a choice among
        models but not for telling.

    Raises
    ------
    LikelihoodError
        The bracket is wider than `widest`.
    """
    sampler = UnitSampler(rng)
    weight = rbms.log_weight(frames)
    n = len(frames)
    if _all_alike(rbms) and n > _ENOUGH_ALIKE:
        # One partition function for all: estimates of some frames' serve every frame.
        n = _ENOUGH_ALIKE
    some = torch.arange(n) * len(frames) // n
    estimates = [
        torch.stack(
            log_partition(rbms[some[rows]], frames[some[rows]], annealing, sampler)
        )
        for rows in _tiles(n, max(1, _TILE_ROWS // annealing.n_chains))
    ]
    up, down, again = torch.cat(estimates, dim=1)
    if n < len(frames):
        up, down, again = up.mean(), down.mean(), again.mean()
    high = weight - up
    low = min(float((weight - down).mean()), float((weight - again).mean()))
    bracket = Bracket(low, float(high.mean()))
    if widest is not None and not bracket.width <= widest:
        raise LikelihoodError(width_error(bracket, annealing.n_temperatures, widest))
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
    """Expected accuracy of predicted frames, given the true past.

    Each prediction is a sample: `n_steps` block Gibbs steps from the previous
    frame, as in Boulanger-Lewandowski, Bengio and Vincent (ICML 2012). On a strong
    model these do not reach its distribution; with `annealing` a sample comes from
    a factorial distribution instead, with a `TemperingOptions` from parallel chains.

    Parameters
    ----------
    rbms : ConditionalRbms
    frames, previous : float32[n_frames, n_visible]
    rng : Generator
    n_steps, n_samples : int
        Gibbs steps per sample, samples per frame.
    annealing : Annealing or Tempering, optional
        Way of sampling that replaces the Gibbs steps.
    """
    sampler = UnitSampler(rng)
    counts = []
    for rows in _tiles(len(frames), _TILE_ROWS):
        part, start, wanted = rbms[rows], previous[rows], frames[rows]
        for _ in range(n_samples):
            if annealing is None:
                drawn = gibbs(part, start, n_steps, sampler)
            elif isinstance(annealing, TemperingOptions):
                drawn = draw_tempered(part, start, annealing, sampler)
            else:
                drawn = draw_annealed(part, start, annealing, sampler)
            counts.append(match_counts(drawn, wanted))
    return accuracy_of(torch.cat(counts))


def match_counts(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Units on in both, in the drawn frame, in the wanted one: float64[n, 3]."""
    both = drawn * wanted
    sums = [x.sum(-1, dtype=torch.float64) for x in (both, drawn, wanted)]
    return torch.stack(sums, dim=1)


def accuracy_of(counts: Tensor) -> Accuracy:
    """Accuracies of frames with the counts of `match_counts`.

    A frame of silence that is predicted as silence is right.
    """
    both, drawn, wanted = counts.unbind(1)
    once = torch.maximum(drawn, wanted)
    twice = drawn + wanted - both
    right = torch.ones_like(both)
    return Accuracy(
        float(torch.where(once > 0, both / once.clamp_min(1), right).mean()),
        float(torch.where(twice > 0, both / twice.clamp_min(1), right).mean()),
        float(both.sum() / twice.sum().clamp_min(1)),
    )


def _one_roll(model: RnnRbm, roll: Float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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


def _all_alike(rbms: ConditionalRbms) -> bool:
    return all(bool((b == b[:1]).all()) for b in (rbms.bv, rbms.bh))


def _tiles(n: int, size: int) -> Iterator[slice]:
    """Slices that keep the work of one step in the processor's cache."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def width_error(bracket: Bracket, n_temperatures: int, widest: float) -> str:
    """Why a bracket is no figure, and what may make it one."""
    # The gap shrinks as one over the number of temperatures, in the end.
    needed = n_temperatures * bracket.width / widest * 1.25
    more = (
        f"try {math.ceil(needed / 100) * 100} temperatures instead of {n_temperatures}"
        if math.isfinite(needed)
        else "the model's weights are not finite"
    )
    return (
        f"log-likelihood is somewhere between {bracket.low:.2f} and "
        f"{bracket.high:.2f} nats, a bracket wider than {widest:g}: {more}"
    )
