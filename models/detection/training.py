"""Training of a detector network on scenes, a `toolkit.loop.Task`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neurovocal.models.detection.judged import batch_of
from neurovocal.models.detection.network import DetectorNetwork
from neurovocal.models.detection.recipe import DetectorRecipe
from neurovocal.models.detection.scenes import CALL, UNKNOWN, Scene, Target
from neurovocal.models.toolkit.optim import guard_gradients, rate_factor, set_rates
from neurovocal.plugins.detectors.excess_network import MIDDLE_DB, ODDS_PER_DB

# A stream lasts for hours, a sequence for half a second: half of the sequences begin
# with a state after another sequence, and some at the start of a stream.
_USED_STATES = 0.5
_AT_START = 0.4
_LEAST_DB, _MOST_DB = 2.0, 18.0  # scores that the loss tells apart


@dataclass(frozen=True, slots=True, eq=False)
class ScenePool:
    """Scenes of one kind, all of the same length.

    Parameters
    ----------
    levels : float16[n_scenes, n_rows, n_bands]
        As of a `Scene`.
    scores : float16[n_scenes, n_rows]
        As of a `Scene`.
    target : int8[n_scenes, n_rows]
        Targets.
    share : float
        Share of the training sequences that come from here.
    """

    levels: NDArray[np.float16]
    scores: NDArray[np.float16]
    target: NDArray[np.int8]
    share: float


class DetectorTask:
    """Detector network with its scenes and optimizer.

    Parameters
    ----------
    recipe : DetectorRecipe
        Sizes and training options.
    pools : sequence of ScenePool
        Scenes of the training.
    valid : mapping of str to sequence of Scene
        Scenes that choose the weights, by dataset; each dataset counts the same.
    """

    name = "detector network"
    patience: int | None = None

    def __init__(
        self,
        recipe: DetectorRecipe,
        pools: Sequence[ScenePool],
        valid: dict[str, list[Scene]],
    ) -> None:
        config = recipe.network
        torch.manual_seed(recipe.seed)
        self.rng = np.random.Generator(np.random.SFC64(recipe.seed))
        self.carried: dict[str, Tensor] = {}
        self.updates = config.updates
        self.validate_every = config.validate_every
        self.module = DetectorNetwork(config.n_hidden, config.kernel_length)
        self._config = config
        self._pools = [pool for pool in pools if len(pool.target)]
        shares = np.array([pool.share for pool in self._pools])
        self._shares = shares / shares.sum()
        self._valid = valid
        rate = config.learning_rate
        groups = [{"params": list(self.module.parameters()), "initial_lr": rate}]
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, lr=rate, weight_decay=config.weight_decay
        )

    def begin(self, progress: float) -> bool:
        """Set the learning rate; there is a single phase."""
        set_rates(self.optimizer, rate_factor("cosine", progress))
        return False

    def step(self, progress: float) -> float:
        """Train on one batch of sequences and return its loss."""
        levels, scores, target, weight, starts = self._batch()
        corrections, after = self.module(levels, scores, self._initial_state(starts))
        self.carried = {name: value.detach() for name, value in after.items()}
        loss, size = self._losses(corrections, scores, target, weight)
        loss = loss + self._config.correction_weight * size
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if guard_gradients(self.module.parameters(), "skip", self._config.clip):
            self.optimizer.step()
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        """Return the mean cross entropy over the datasets, the score, and of each."""
        measures = {}
        for name, scenes in self._valid.items():
            losses = []
            for scene in scenes:
                known = (scene.target != UNKNOWN).astype(np.float32)
                if known.any():
                    inputs = batch_of(scene.levels, scene.scores)
                    corrections, _ = self.module(*inputs)
                    target, weight = (
                        torch.from_numpy(values)[None]
                        for values in (scene.target, known)
                    )
                    loss, _ = self._losses(corrections, inputs[1], target, weight)
                    losses.append(float(loss))
            if losses:
                measures[f"entropy_{name}"] = float(np.mean(losses))
        return {"score": float(np.mean([*measures.values()])), **measures}

    def _losses(
        self, corrections: Tensor, scores: Tensor, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the mean cross entropy and the mean square of the corrections in dB.

        The last rows wait for corrections in vain.
        """
        ahead = self._config.look_ahead
        n = corrections.shape[1] - ahead
        corrections, scores = corrections[:, ahead:], scores[:, :n]
        target, weight = target[:, :n], weight[:, :n]
        # What is far from the thresholds is not to be moved for its certainty's sake.
        near = scores.clamp(_LEAST_DB, _MOST_DB)
        losses = functional.binary_cross_entropy_with_logits(
            ODDS_PER_DB * (near + corrections - MIDDLE_DB),
            (target == CALL).float(),
            reduction="none",
        )
        total = weight.sum().clamp_min(1.0)
        size = (corrections.square() * weight).sum() / total
        return (losses * weight).sum() / total, size

    def _initial_state(self, starts: NDArray[np.bool_]) -> dict[str, Tensor]:
        """Return zeros, or the states after other sequences where none begins."""
        state = self.module.initial_state(len(starts))
        order = torch.from_numpy(self.rng.permutation(len(starts)))
        used = ~starts & (self.rng.random(len(starts)) < _USED_STATES)
        if self.carried:
            rows = torch.from_numpy(used)
            for name, fresh in state.items():
                fresh[rows] = self.carried[name][order][rows]
        return state

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, NDArray[np.bool_]]:
        """Draw sequences.

        Returns
        -------
        levels : float32[batch, T, n_bands]
        scores : float32[batch, T]
        target : int8[batch, T]
        weight : float32[batch, T]
        starts : bool[batch]
            Whether a sequence is the start of a stream.
        """
        config = self._config
        length = config.sequence_length
        parts: list[NDArray[np.float16]] = []
        all_scores: list[NDArray[np.float16]] = []
        targets: list[Target] = []
        starts = np.zeros(config.batch_size, bool)
        kinds = self.rng.choice(
            len(self._pools), size=config.batch_size, p=self._shares
        )
        for row, kind in enumerate(kinds):
            pool = self._pools[kind]
            number = int(self.rng.integers(len(pool.target)))
            last = max(0, pool.target.shape[1] - length)
            first = int(self.rng.integers(last + 1))
            if self.rng.random() < _AT_START / 2:
                first, starts[row] = 0, True
            part = slice(first, first + length)
            parts.append(pool.levels[number, part])
            all_scores.append(pool.scores[number, part])
            targets.append(pool.target[number, part])
        levels, target = np.stack(parts).astype(np.float32), np.stack(targets)
        noise = self.rng.standard_normal((len(levels), 1, levels.shape[2]))
        levels += (config.noise_db * noise).astype(np.float32)
        weight = self._weights(target)
        weight[~starts, : config.warm_up] = 0.0
        return (
            torch.from_numpy(levels),
            torch.from_numpy(np.stack(all_scores).astype(np.float32)),
            torch.from_numpy(target),
            torch.from_numpy(weight),
            starts,
        )

    def _weights(self, target: NDArray[np.int8]) -> NDArray[np.float32]:
        """Return the weight of each row: more next to an onset or offset."""
        weight = np.asarray(target != UNKNOWN, np.float32)
        changes = target[:, 1:] != target[:, :-1]
        near = np.zeros(target.shape, bool)
        near[:, 1:] |= changes
        near[:, :-1] |= changes
        weight[near] *= self._config.edge_weight
        return weight
