"""Training of the models of the paper's table, one optimizer step at a time.

N. Boulanger-Lewandowski, Y. Bengio, P. Vincent, "Modeling Temporal Dependencies in
High-Dimensional Sequences", ICML 2012. As in the paper, the recurrent layers are first
trained to predict the next frame by themselves, and the RBM without a past; then both
are trained together. Kinds of steps:

* `static`: persistent contrastive divergence of the RBM without a past. A strong RBM
  needs a large learning rate and many cheap steps.
* `predictor`: cross entropy of a linear read-out of the state, with dropout.
* `conditional`: contrastive divergence of everything but the recurrent layers, on
  single frames whose states were computed once. It starts from the read-out, with W
  near 0, so that W stays small and its chains mix.
* `joint`: contrastive divergence of the whole model, with a learning rate of its own
  for W, because likelihood gained with W alone costs accuracy.
* `nade`: as `conditional`, with a NADE in the RBM's place and its exact likelihood.
"""

import numpy as np
import torch
from piano_model import PianoModel
from piano_rolls import N_NOTES, Recipe, Rolls, Step, transposed
from torch import Tensor
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.annealing import (
    AnnealingOptions,
    ConditionalRbms,
    UnitSampler,
    gibbs,
)
from neurovocal.models.rnn_rbm.likelihood import (
    conditional_rbms,
    expected_accuracy,
    log_likelihood,
)
from neurovocal.models.rnn_rbm.network import uniform_from
from neurovocal.models.toolkit.optim import guard_gradients, rate_factor, set_rates

# One percent of expected accuracy weighs as much as 0.3 nat in the choice of the best
# weights: both columns of the table are of one model, and W alone can gain nats.
_ACCURACY_WEIGHT = 30.0
_QUICK = AnnealingOptions(n_temperatures=200, n_chains=1, n_mixing=50)
_COARSE = AnnealingOptions(n_temperatures=100, n_chains=1, n_mixing=20)


# Frames of the validation set that a look takes in, about.
_LOOKED_AT = 8000


class PianoTask:
    """One model, its pieces and its steps (a `neurovocal.models.toolkit.loop.Task`).

    Parameters
    ----------
    recipe : Recipe
    rolls : Rolls
    seed : int
    start : dict, optional
        Weights of a model of the same sizes whose predictor is trained already.
    """

    name = "model of piano rolls"
    patience: int | None = None

    def __init__(
        self,
        recipe: Recipe,
        rolls: Rolls,
        seed: int,
        start: dict[str, Tensor] | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.carried: dict[str, Tensor] = {}
        self.updates = sum(n for _, n in recipe.phases)
        self.validate_every = recipe.validate_every
        self._recipe = recipe
        self._uniform = uniform_from(self.rng)
        self._pieces = rolls.train
        self._valid = _some_pieces(rolls.valid, _LOOKED_AT)
        self._frames = torch.from_numpy(np.concatenate(rolls.train))
        lengths = np.array([len(piece) for piece in rolls.train], float)
        self._share = lengths / lengths.sum()
        self.module = PianoModel(recipe, self._frames.mean(0))
        if start is not None:
            self.module.load_state_dict(start, strict=not recipe.nade)
            self.module.take_read_out()
        self._noise = UnitSampler(self.rng)
        self._states: Tensor | None = None
        self._within = 0.0
        self._number = -1
        self.optimizer = self._optimizer()

    @property
    def kind(self) -> Step:
        """Kind of the present step."""
        return self._recipe.phases[max(self._number, 0)][0]

    def begin(self, progress: float) -> bool:
        """Set the learning rates; a new kind of step gets a new optimizer."""
        at, number = progress * self.updates, 0
        for _, n in self._recipe.phases[:-1]:
            if at < n:
                break
            at, number = at - n, number + 1
        changed = number != self._number
        if changed:
            self._number = number
            if self.kind == "conditional" and self._recipe.predictor:
                self.module.take_read_out()
            self.optimizer = self._optimizer()
        self._within = at / self._recipe.phases[number][1]
        set_rates(self.optimizer, rate_factor("cosine", self._within))
        return changed

    def step(self, progress: float) -> float:
        """Take one step of the present kind."""
        match self.kind:
            case "static":
                loss = self._static_loss()
            case "predictor":
                loss = self._predictor_loss()
            case "conditional":
                loss = self._conditional_loss()
            case "joint":
                loss = self._joint_loss()
            case "nade":
                loss = self._nade_loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if guard_gradients(self.module.parameters(), "skip", 5.0):
            self.optimizer.step()
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        """Measure the validation set approximately, for the choice of weights."""
        if self.kind == "predictor":
            entropy = self.module.cross_entropy(self._valid)
            return {"score": entropy, "log_likelihood": -entropy}
        if self.kind == "nade":
            likely = float(self.module.nade_likelihood(self._valid).mean())
            return {"score": -likely, "log_likelihood": likely}
        # A generator of its own: looking must not change what is trained.
        rng = np.random.Generator(np.random.SFC64(0))
        rbms, frames, previous = conditional_rbms(self.module.rbm, self._valid)
        order = torch.from_numpy(rng.permutation(len(frames)))
        static = self.kind == "static"
        # The many looks at the static steps choose little: they may be coarse.
        some, annealing = (order[:500], _COARSE) if static else (order[:1000], _QUICK)
        found = log_likelihood(rbms[some], frames[some], annealing, rng, max_width=None)
        likely = found.bracket.middle
        measures = {"score": -likely, "log_likelihood": likely}
        if not static:
            # Without a past, Gibbs runs from the last frame would only say how badly
            # they mix.
            some = order[:3000]
            accuracy = expected_accuracy(
                rbms[some], frames[some], previous[some], rng, n_samples=3
            )
            measures["accuracy"] = accuracy.replaced_once
            measures["score"] -= _ACCURACY_WEIGHT * accuracy.replaced_once
        return measures | {"w_norm": float(self.module.rbm.W.norm())}

    def _static_loss(self) -> Tensor:
        """Return the loss of persistent contrastive divergence without a past."""
        rbm, n = self.module.rbm, 200
        drawn = self._frames[
            torch.from_numpy(self.rng.integers(len(self._frames), size=n))
        ]
        far = self.carried.get("chains", drawn)
        far = rbm.negative_phase(far, rbm.bv, rbm.bh, 5, self._uniform, sampled=True)
        self.carried["chains"] = far
        data = rbm.free_energy(drawn, rbm.bv, rbm.bh).mean()
        return data - rbm.free_energy(far, rbm.bv, rbm.bh).mean()

    def _conditional_loss(self) -> Tensor:
        """Return the loss of contrastive divergence on single frames with fixed states.

        States that are computed once make a step as cheap as one without a past.
        """
        rbm, recipe = self.module.rbm, self._recipe
        v, bv, bh = self._single_frames(200)
        part = int(self._within * len(recipe.conditional_cd))
        chains = ConditionalRbms(rbm.W.detach(), bv.detach(), bh.detach())
        far = gibbs(chains, v, recipe.conditional_cd[part], self._noise)
        return (rbm.free_energy(v, bv, bh) - rbm.free_energy(far, bv, bh)).mean()

    def _single_frames(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw frames from anywhere; returns them and their biases."""
        if self._states is None:
            self._states = self.module.all_states(self._pieces)
        rows = torch.from_numpy(self.rng.integers(len(self._frames), size=n))
        return self._frames[rows], *self.module.rbm.biases(self._states[rows])

    def _predictor_loss(self) -> Tensor:
        v, counts = self._batch()
        u = self.module.states(self._with_input_dropout(v))
        logits = self.module.head(self.module.rbm.dropout(u))
        loss = functional.binary_cross_entropy_with_logits(logits, v, reduction="none")
        return loss.sum(-1)[counts].mean()

    def _joint_loss(self) -> Tensor:
        rbm = self.module.rbm
        v, counts = self._batch()
        bv, bh = rbm.biases(self.module.states(self._with_input_dropout(v)))
        bv, bh, v = bv[counts], bh[counts], v[counts]
        chains = ConditionalRbms(rbm.W.detach(), bv.detach(), bh.detach())
        far = gibbs(chains, v, self._recipe.cd_steps, self._noise)
        return (rbm.free_energy(v, bv, bh) - rbm.free_energy(far, bv, bh)).mean()

    def _nade_loss(self) -> Tensor:
        """Return the mean negative log-likelihood of single frames, fixed states."""
        v, bv, bh = self._single_frames(200)
        return -self.module.nade.log_likelihood(v, bv, bh).mean()

    def _with_input_dropout(self, v: Tensor) -> Tensor:
        if not self._recipe.input_dropout:
            return v
        return v * (self._uniform(tuple(v.shape)) >= self._recipe.input_dropout)

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Return parts of pieces, [T, batch, 88], and which of their frames count."""
        recipe = self._recipe
        shape = (recipe.sequence_length, recipe.batch_size)
        v = np.zeros((*shape, N_NOTES), np.float32)
        counts = np.zeros(shape, bool)
        chosen = self.rng.choice(len(self._pieces), recipe.batch_size, p=self._share)
        for column, number in enumerate(chosen):
            piece = self._pieces[number]
            spare = max(0, len(piece) - recipe.sequence_length)
            # Starts before the piece become its start, which long pieces would
            # hardly ever show otherwise.
            start = max(0, int(self.rng.integers(-(spare // 10) - 1, spare + 1)))
            part = self._in_some_key(piece[start : start + recipe.sequence_length])
            v[: len(part), column] = part
            counts[recipe.warm_up if start else 0 : len(part), column] = True
        return torch.from_numpy(v), torch.from_numpy(counts)

    def _in_some_key(self, part: Float32) -> Float32:
        """Transpose a share of the sequences, fewer and fewer towards the end."""
        keys = self._recipe.keys
        if not keys or self.kind != "predictor" or self.rng.random() < self._within:
            return part
        return transposed(part, int(self.rng.integers(-keys, keys + 1)))

    def _optimizer(self) -> torch.optim.Optimizer:
        module, recipe = self.module, self._recipe
        rbm = module.rbm
        match self.kind:
            case "static":
                rate = recipe.static_rate
                groups = [{"params": [rbm.W, rbm.bv, rbm.bh], "initial_lr": rate}]
            case "predictor":
                parts = [*rbm.layers.parameters(), *module.head.parameters()]
                groups = [{"params": parts, "initial_lr": recipe.predictor_rate}]
            case "conditional":
                others = [rbm.bv, rbm.bh, rbm.Wuv, rbm.Wuh]
                groups = [
                    {"params": others, "initial_lr": recipe.conditional_rate},
                    {"params": [rbm.W], "initial_lr": recipe.conditional_rate_w},
                ]
            case "joint":
                skipped = ("W", "log_sigma")
                others = [p for n, p in rbm.named_parameters() if n not in skipped]
                groups = [
                    {"params": others, "initial_lr": recipe.joint_rate},
                    {"params": [rbm.W], "initial_lr": recipe.joint_rate_w},
                ]
            case "nade":
                parts = [rbm.bv, rbm.bh, rbm.Wuv, rbm.Wuh, *module.nade.parameters()]
                groups = [{"params": parts, "initial_lr": recipe.nade_rate}]
        return torch.optim.Adam(groups, lr=1e-3)


def _some_pieces(pieces: list[Float32], n_frames: int) -> list[Float32]:
    """Draw pieces at random, with at least `n_frames` frames or all pieces."""
    order = np.random.Generator(np.random.SFC64(0)).permutation(len(pieces))
    ends = np.cumsum([len(pieces[i]) for i in order])
    n = int(np.searchsorted(ends, n_frames)) + 1
    return [pieces[i] for i in order[:n]]
