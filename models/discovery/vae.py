"""Variational autoencoder of patches: a few numbers that say what a segment is like.

The encoder gives mean and log variance of a Gaussian for a patch, the decoder the
patch for a sample of it (D. P. Kingma and M. Welling, "Auto-encoding variational
Bayes", ICLR 2014). The means are the features of a segment.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.optim import set_rates

_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE = -10.0, 5.0
_MOST_VALID = 1000
_ENCODED_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class VaeSettings:
    """Size and training of the autoencoder.

    Parameters
    ----------
    n_latent : int
        Numbers that describe a segment.
    n_hidden : int
        Units of the larger hidden layer; the smaller one has half as many.
    precision : float
        Weight of the squared error of a value (0 to 1) against the divergence of the
        Gaussians from the prior.
    updates, batch_size : int
        Steps of the optimizer, and patches in each.
    learning_rate : float
        Of Adam; it falls to 0 in the last third.
    """

    n_latent: int = 32
    n_hidden: int = 256
    precision: float = 100.0
    updates: int = 1500
    batch_size: int = 64
    learning_rate: float = 1e-3


class Vae(nn.Module):
    """Autoencoder of patches with two hidden layers on each side.

    Parameters
    ----------
    n_values : int
        Values of a patch.
    settings : VaeSettings
        Sizes.
    """

    def __init__(self, n_values: int, settings: VaeSettings) -> None:
        super().__init__()
        large, small = settings.n_hidden, settings.n_hidden // 2
        self.encoder = nn.Sequential(
            nn.Linear(n_values, large), nn.ReLU(), nn.Linear(large, small), nn.ReLU()
        )
        self.mean = nn.Linear(small, settings.n_latent)
        self.log_variance = nn.Linear(small, settings.n_latent)
        self.decoder = nn.Sequential(
            nn.Linear(settings.n_latent, small),
            nn.ReLU(),
            nn.Linear(small, large),
            nn.ReLU(),
            nn.Linear(large, n_values),
        )

    def encode(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of patches float32[batch, n_values]."""
        hidden = self.encoder(patches)
        spread = self.log_variance(hidden).clamp(
            _LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE
        )
        return self.mean(hidden), spread


class VaeTask:
    """Autoencoder with its data and optimizer, a `toolkit.loop.Task`.

    A tenth of the patches, `_MOST_VALID` at most, chooses the weights.

    Parameters
    ----------
    patches : uint8[n_segments, n_columns, n_bins]
        Patches, which may lie in a file.
    settings : VaeSettings
        Sizes and training.
    seed : int
        Seed of weights, batches and draws.
    """

    name = "autoencoder"

    def __init__(
        self, patches: NDArray[np.uint8], settings: VaeSettings, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.updates = settings.updates
        self.validate_every = max(1, settings.updates // 15)
        self.patience: int | None = None
        self.carried: dict[str, Tensor] = {}
        self._patches, self._settings = patches, settings
        n_values = int(np.prod(patches.shape[1:]))
        self.module: Vae = Vae(n_values, settings)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
            self.module.parameters(), settings.learning_rate
        )
        order = np.random.default_rng(seed).permutation(len(patches))
        n_valid = min(_MOST_VALID, len(patches) // 10)
        self._valid = np.sort(order[:n_valid] if n_valid else order)
        self._train = np.sort(order[n_valid:])
        for group in self.optimizer.param_groups:
            group["initial_lr"] = settings.learning_rate

    def begin(self, progress: float) -> bool:
        """Set the learning rate; there is a single phase."""
        set_rates(self.optimizer, min(1.0, 3 * (1 - progress)))
        return False

    def step(self, progress: float) -> float:
        """Train on one batch and return its loss."""
        drawn = self.rng.integers(0, len(self._train), self._settings.batch_size)
        loss = self._loss(self._batch(self._train[drawn]), sampled=True)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        """Return the loss per patch, the score, without draws."""
        total = 0.0
        for rows in np.array_split(self._valid, len(self._valid) // 512 + 1):
            loss = self._loss(self._batch(rows), sampled=False)
            total += float(loss) * len(rows)
        return {"score": total / len(self._valid)}

    def features(self) -> Float32:
        """Return the features of all segments, float32[n_segments, n_latent]."""
        parts = []
        with torch.no_grad():
            for first in range(0, len(self._patches), _ENCODED_AT_ONCE):
                stop = min(first + _ENCODED_AT_ONCE, len(self._patches))
                mean, _ = self.module.encode(self._batch(np.arange(first, stop)))
                parts.append(mean.numpy())
        return np.concatenate(parts)

    def _batch(self, rows: NDArray[Any]) -> Tensor:
        values = np.asarray(self._patches[rows], np.float32) / 255.0
        return torch.from_numpy(values.reshape(len(rows), -1))

    def losses(self, patches: Tensor, *, sampled: bool) -> Tensor:
        """Return the loss of each patch, float32[batch].

        Parameters
        ----------
        patches : float32[batch, n_values]
            Levels from 0 to 1.
        sampled : bool
            Whether codes are drawn; else they are the means.
        """
        settings = self._settings
        mean, spread = self.module.encode(patches)
        drawn = mean
        if sampled:
            drawn = mean + torch.randn_like(mean) * torch.exp(spread / 2)
        error = torch.square(self.module.decoder(drawn) - patches).sum(1)
        divergence = (torch.square(mean) + spread.exp() - 1 - spread).sum(1) / 2
        return settings.precision * error + divergence

    def _loss(self, patches: Tensor, *, sampled: bool) -> Tensor:
        return self.losses(patches, sampled=sampled).mean()
