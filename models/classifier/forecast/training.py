"""Training of the RNN-RBM over units by exact likelihood."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neurovocal.models.classifier.forecast.network import (
    Phrase,
    UnitRnnRbm,
    gap_edges,
    phrase_inputs,
)
from neurovocal.models.toolkit.optim import guard_gradients, rate_factor, set_rates
from neurovocal.models.toolkit.recipe import ForecastConfig

_PADDING = -1


class ForecastTask:
    """Forecast with its phrases and optimizer, a `toolkit.loop.Task`.

    Parameters
    ----------
    config : ForecastConfig
        Sizes and training options.
    train, valid : sequence of Phrase
        Phrases of the training and validation splits.
    n_units : int
        Number of units without silence.
    seed : int
        Seed of weights and batches.
    """

    name = "forecast"
    patience: int | None = None

    def __init__(
        self,
        config: ForecastConfig,
        train: Sequence[Phrase],
        valid: Sequence[Phrase],
        n_units: int,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.carried: dict[str, Tensor] = {}
        self.updates = config.updates
        self.validate_every = config.validate_every
        self.edges = gap_edges(train, config.gap_bins)
        self.module = UnitRnnRbm(config, n_units, len(self.edges) + 2)
        self._config = config
        self._train = [(*phrase_inputs(p, n_units, self.edges), p.units) for p in train]
        self._valid = self._padded(
            [(*phrase_inputs(p, n_units, self.edges), p.units) for p in valid]
        )
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
        """Train on one batch of phrases and return its loss.

        The silence before the predicted unit is hidden for half of the units, as
        before its onset; a share of the input units is hidden, as if `unknown`.
        """
        config = self._config
        chosen = self.rng.integers(len(self._train), size=config.batch_size)
        tokens, gaps, target = self._padded([self._train[i] for i in chosen])
        shape = (*target.shape, 1)
        gap_known = self.rng.random(shape) < 0.5
        unit_known = self.rng.random(shape) >= config.forgotten
        tokens[..., : self.module.n_units] *= torch.from_numpy(unit_known)
        gaps *= torch.from_numpy(gap_known)
        loss = self._entropy(tokens, gaps, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if guard_gradients(self.module.parameters(), "skip", config.clip):
            self.optimizer.step()
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        """Return nats per unit before and at the onset; the score is their mean."""
        tokens, gaps, target = self._valid
        before = float(self._entropy(tokens, torch.zeros_like(gaps), target))
        at_onset = float(self._entropy(tokens, gaps, target))
        return {
            "score": (before + at_onset) / 2,
            "nats_before_onset": before,
            "nats_at_onset": at_onset,
        }

    def _entropy(self, tokens: Tensor, gaps: Tensor, target: Tensor) -> Tensor:
        """Compute the cross entropy in nats per unit, including first units."""
        log_posteriors, _ = self.module(tokens, gaps)
        return functional.nll_loss(
            log_posteriors.flatten(0, 1), target.flatten(), ignore_index=_PADDING
        )

    def _padded(
        self, rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Stack phrases: tokens and gaps [T, batch, ...], targets [T, batch]."""
        longest = max((len(units) for *_, units in rows), default=1)
        n = self.module.n_units + self.module.n_gaps
        tokens = np.zeros((longest, len(rows), n), np.float32)
        gaps = np.zeros((longest, len(rows), self.module.n_gaps), np.float32)
        target = np.full((longest, len(rows)), _PADDING, np.int64)
        for column, (token, gap, units) in enumerate(rows):
            tokens[: len(units), column] = token
            gaps[: len(units), column] = gap
            target[: len(units), column] = units
        return (
            torch.from_numpy(tokens),
            torch.from_numpy(gaps),
            torch.from_numpy(target),
        )
