"""Training of the RNN-RBM in phases of contrastive divergence or exact likelihood."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.rnn_rbm.network import RnnRbm, uniform_from
from neurovocal.models.rnn_rbm.persistent_chains import PersistentChains
from neurovocal.models.toolkit.optim import (
    RmsProp,
    guard_gradients,
    rate_factor,
    set_rates,
    weight_penalty,
)
from neurovocal.models.toolkit.recipe import Phase, RnnRbmConfig
from neurovocal.models.toolkit.rows import ClippedRows, Rows, mean_and_spread

# Decay of the running covariance of prediction errors, per update.
_COVARIANCE_DECAY = 0.95


class RnnRbmTask:
    """RNN-RBM with its data and optimizer, a `toolkit.loop.Task`.

    Parameters
    ----------
    config : RnnRbmConfig
        Architecture and training options.
    train, valid : sequence of Rows, float32[n_frames, n_bins]
        Songs with values in [0, 1], one per recording.
    seed : int
        Seed of weights, batches and Gibbs chains.
    n_condition : int
        Last values of each frame that are its plan (`planned.planned_songs`).

    Raises
    ------
    ConfigError
        No training song is as long as a training sequence.
    """

    name = "RNN-RBM"
    patience: int | None = None

    def __init__(
        self,
        config: RnnRbmConfig,
        train: Sequence[Rows],
        valid: Sequence[Rows],
        seed: int,
        n_condition: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.carried: dict[str, Tensor] = {}
        self._uniform = uniform_from(self.rng)
        self._config = config
        self._length = config.warm_up + config.sequence_length
        self._train = [song for song in train if len(song) > self._length]
        if not self._train:
            raise ConfigError(
                f"no training recording has {self._length + 1} frames of song: lower "
                "rnn_rbm.sequence_length"
            )
        self._valid = valid
        lengths = np.array([len(song) for song in self._train], float)
        self._share = lengths / lengths.sum()
        # Number of the first frame of each song among all frames.
        self._first = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._frame_numbers = self._first[:0]
        self.updates = sum(phase.updates for phase in config.phases)
        self.validate_every = config.validate_every
        n_visible = train[0].shape[1] - n_condition
        self.module = RnnRbm(config, n_visible, n_condition)
        self._initialize_biases()
        self._phase = -1
        self.optimizer = self._new_optimizer(config.phases[0])

    def begin(self, progress: float) -> bool:
        """Set the learning rates; a new phase gets a new optimizer.

        Returns
        -------
        bool
            True if a new phase starts.
        """
        number, phase_progress = self._locate_phase(progress)
        changed = number != self._phase
        phase = self._config.phases[number]
        if changed:
            self._phase = number
            self._set_trained_parameters(phase)
            self.optimizer = self._new_optimizer(phase)
        set_rates(self.optimizer, rate_factor(phase.decay, phase_progress))
        return changed

    def step(self, progress: float) -> float:
        """Train on one batch of sequences and return its loss."""
        model, config = self.module, self._config
        v = self._batch()
        loss = self._loss(v, config.phases[self._phase].objective)
        if config.l1 or config.l2:
            weights = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
            loss = loss + weight_penalty(weights, config.l1, config.l2)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if guard_gradients(model.parameters(), config.non_finite, config.clip):
            self.optimizer.step()
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        """Return the squared error of one-step predictions and the free energy.

        The score is the squared error.
        """
        error, energy, n = 0.0, 0.0, 0
        for song in self._valid:
            v, plan = self.module.split(torch.from_numpy(song[:])[:, None])
            inputs = torch.cat([v[:-1], plan[1:]], dim=-1)
            u = self.module.states(inputs, self.module.initial_state())[:, -1]
            bv, bh = self.module.biases(u)
            targets = v[1:]
            predicted = self.module.predict(v[:-1], bv, bh)
            error += float((predicted - targets).square().mean(-1).sum())
            energy += float(self.module.free_energy(targets, bv, bh).sum())
            n += len(targets)
        norm = float(self.module.W.norm())
        return {"score": error / n, "free_energy": energy / n, "w_norm": norm}

    def _loss(self, v: Tensor, objective: str) -> Tensor:
        """Compute the loss of sequences [T + 1, batch, n_visible + n_condition]."""
        model, config = self.module, self._config
        v, plan = model.split(v)
        before, now = v[:-1], v[1:]
        if objective == "static":
            u = torch.zeros(*now.shape[:2], model.n_recurrent)
        else:
            inputs = torch.cat([self._add_feedback_noise(before), plan[1:]], dim=-1)
            u = model.states(inputs, model.initial_state(v.shape[1]))[:, -1]
        # The first frames only warm up the state.
        before, now = before[config.warm_up :], now[config.warm_up :]
        u = u[config.warm_up :]
        bv, bh = model.biases(u)
        if config.feedback_noise and objective != "static":
            self._update_error_covariance(now, model.predict(before, bv, bh).detach())
        if objective == "deterministic":
            loss = model.deterministic_loss(now, bv)
        else:
            negative = model.negative_phase(
                self._chain_starts(now),
                bv,
                bh,
                config.cd_steps,
                self._uniform,
                sampled=config.visible_sampling == "sampled",
            )
            self._store_chains(negative)
            difference = model.free_energy(now, bv, bh) - model.free_energy(
                negative, bv, bh
            )
            loss = difference.mean()
        if config.smoothness and objective != "static":
            change = (bv[1:] - bv[:-1]).square().sum(-1).mean()
            loss = loss + config.smoothness * change
        return loss

    def _add_feedback_noise(self, v: Tensor) -> Tensor:
        """Add noise with the covariance of the model's prediction errors to frames.

        The level is drawn for each sequence, from 0 to `feedback_noise`. The noise
        prepares the network for synthesis, where its inputs have such errors.
        """
        max_level = self._config.feedback_noise
        if not max_level or "error_covariance" not in self.carried:
            return v
        covariance = self.carried["error_covariance"]
        ridge = 1e-6 + 1e-3 * float(covariance.diagonal().mean())
        factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance)))
        normal = self.rng.standard_normal(tuple(v.shape), dtype=np.float32)
        level = max_level * self.rng.random((1, v.shape[1], 1), dtype=np.float32)
        noise = torch.from_numpy(normal * level) @ factor.t()
        noisy: Tensor = v + noise
        return noisy if self.module.gaussian else noisy.clamp(0.0, 1.0)

    def _update_error_covariance(self, v: Tensor, predicted: Tensor) -> None:
        """Update the running covariance of the prediction errors."""
        errors = (v - predicted).flatten(0, 1)
        found = errors.t() @ errors / len(errors)
        previous = self.carried.get("error_covariance", found)
        self.carried["error_covariance"] = torch.lerp(
            previous, found, 1 - _COVARIANCE_DECAY
        )

    def _batch(self) -> Tensor:
        """Draw sequences [warm_up + sequence_length + 1, batch, n_values]."""
        chosen = self.rng.choice(
            len(self._train), self._config.batch_size, p=self._share
        )
        parts, firsts = [], []
        for number in chosen:
            song = self._train[number]
            start = int(self.rng.integers(len(song) - self._length))
            parts.append(song[start : start + self._length + 1])
            firsts.append(int(self._first[number]) + start)
        counted = np.arange(1 + self._config.warm_up, self._length + 1)
        self._frame_numbers = counted[:, None] + np.array(firsts)
        return torch.from_numpy(np.stack(parts, axis=1))

    def _chain_starts(self, now: Tensor) -> Tensor:
        """Return the start of the Gibbs chains of the frames `now`."""
        if self._config.negative == "cd":
            return now
        return self._chains().resume(self._frame_numbers, self._update(), now)

    def _store_chains(self, negative: Tensor) -> None:
        """Store the chains of the current batch."""
        if self._config.negative == "pcd":
            self._chains().store(self._frame_numbers, self._update(), negative)
            self.carried["update"] += 1

    def _chains(self) -> PersistentChains:
        """Return the persistent chains that `carried` holds."""
        config = self._config
        n_slots = min(config.persistent_frames, int(self._first[-1]))
        n_visible, max_age = self.module.n_visible, config.persistent_updates
        return PersistentChains(self.carried, n_slots, n_visible, max_age)

    def _update(self) -> int:
        """Return the number of updates with persistent chains."""
        return int(
            self.carried.setdefault("update", torch.zeros((), dtype=torch.int64))
        )

    def _locate_phase(self, progress: float) -> tuple[int, float]:
        """Return the number of the phase at `progress`, and the progress within it."""
        at = progress * self.updates
        for number, phase in enumerate(self._config.phases):
            if at < phase.updates:
                return number, at / phase.updates
            at -= phase.updates
        return len(self._config.phases) - 1, 1.0

    def _set_trained_parameters(self, phase: Phase) -> None:
        """Select the parameters that a phase trains, and initialize W.

        W is 0 in `deterministic` phases, where the likelihood is exact, and small
        random numbers afterwards.
        """
        model = self.module
        recurrent = phase.objective != "static"
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(
                (recurrent or not name.startswith(("layers", "Wu")))
                and (model.gaussian or name != "log_sigma")
            )
        if phase.objective == "deterministic":
            model.W.requires_grad_(False)
            nn.init.zeros_(model.W)
        elif not model.W.any():
            nn.init.normal_(model.W, std=0.01)

    def _new_optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """Build the configured optimizer with the learning rates of a phase."""
        others = [p for n, p in self.module.named_parameters() if n != "W"]
        rate_w = phase.learning_rate_w or phase.learning_rate
        groups = [
            {"params": others, "initial_lr": phase.learning_rate},
            {"params": [self.module.W], "initial_lr": rate_w},
        ]
        if self._config.optimizer == "rmsprop":
            return RmsProp(groups, lr=phase.learning_rate)
        return torch.optim.Adam(groups, lr=phase.learning_rate)

    def _initialize_biases(self) -> None:
        """Set the visible biases to those of the mean training frame."""
        mean, spread = mean_and_spread(self._train)
        mean, spread = mean[: self.module.n_visible], spread[: self.module.n_visible]
        if self.module.gaussian:
            spread = np.maximum(spread, 1e-3)
            self.module.log_sigma.data = torch.from_numpy(np.log(spread))
        else:
            mean = np.clip(mean, 0.01, 0.99)
            mean = np.log(mean / (1 - mean))
        self.module.bv.data = torch.from_numpy(mean.astype(np.float32))


def trim_songs(
    examples: list[LabelledFrames], keep_s: float | None, frames_per_s: float
) -> list[ClippedRows]:
    """Trim the silence before and after the song of each recording, without a copy.

    A model that is trained on long silence generates silence. Recordings without a
    segment are left out.

    Parameters
    ----------
    examples : list of LabelledFrames
        Recordings with targets.
    keep_s : float, optional
        Silence to keep before the first and after the last segment, in seconds; None
        keeps whole recordings.
    frames_per_s : float
        Frame rate.
    """
    songs = []
    for example in examples:
        first, stop = 0, len(example.frames)
        if keep_s is not None:
            voiced = np.flatnonzero(example.target)
            if not len(voiced):
                continue
            keep = round(keep_s * frames_per_s)
            first, stop = max(0, int(voiced[0]) - keep), int(voiced[-1]) + 1 + keep
        songs.append(ClippedRows.select(example.frames, first, stop))
    return songs
