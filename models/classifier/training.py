"""Training of the frame-wise classifier: batches, frame weights and loss."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.optim import guard_gradients, rate_factor, set_rates
from neurovocal.models.toolkit.recipe import ClassifierConfig


class ClassifierTask:
    """Classifier with its data and optimizer, a `toolkit.loop.Task`.

    Parameters
    ----------
    config : ClassifierConfig
        Architecture and training options.
    train, valid : list of LabelledFrames
        Recordings to train on, and recordings that are measured along the way. These
        choose the weights where the options have a `patience`; otherwise the last
        weights are kept.
    n_units : int
        Outputs, including silence.
    augmenter : Augmenter
        Augmentation of training sequences.
    seed : int
        Seed of weights and batches.
    unlabelled : sequence of LabelledFrames
        Further recordings to train on, whose targets are a network's. They are drawn in
        proportion to their length, but not more often than the others.
    """

    name = "classifier"

    def __init__(
        self,
        config: ClassifierConfig,
        train: list[LabelledFrames],
        valid: list[LabelledFrames],
        n_units: int,
        augmenter: Augmenter,
        seed: int,
        unlabelled: Sequence[LabelledFrames] = (),
    ) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.updates = config.updates
        self.validate_every = config.validate_every
        self.patience: int | None = config.patience if valid else None
        self.module = Classifier(config, train[0].frames.shape[1], n_units)
        self.optimizer = _optimizer(self.module, config)
        self.carried: dict[str, Tensor] = {}
        self._config = config
        annotated = [m for m in train if len(m.frames)]
        self._train = [*annotated, *unlabelled]
        self._valid = valid
        self._weights = [frame_weights(m, config) for m in self._train]
        lengths = np.array([len(m.frames) for m in self._train], float)
        own = len(annotated)
        lengths[own:] *= min(1.0, lengths[:own].sum() / max(lengths[own:].sum(), 1.0))
        self._share = lengths / lengths.sum()
        self._augment = augmenter

    def begin(self, progress: float) -> bool:
        """Set the learning rate; there is a single phase."""
        set_rates(self.optimizer, rate_factor(self._config.decay, progress))
        return False

    def step(self, progress: float) -> float:
        """Train on one batch of sequences and return its loss."""
        frames, target, weight = self._batch()
        logits, after = self.module(frames, self._initial_state(len(frames)))
        self.carried = {name: value.detach() for name, value in after.items()}
        loss = functional.cross_entropy(
            logits.flatten(0, 1),
            target.flatten(),
            reduction="none",
            ignore_index=IGNORED,
            label_smoothing=self._config.label_smoothing,
        )
        mean = (loss * weight.flatten()).sum() / weight.sum().clamp_min(1e-6)
        self.optimizer.zero_grad(set_to_none=True)
        mean.backward()  # type: ignore[no-untyped-call]
        if guard_gradients(self.module.parameters(), "skip", self._config.clip):
            self.optimizer.step()
        return float(mean.detach())

    def validate(self) -> dict[str, float]:
        """Return cross entropy per frame and share of wrong frames, if any count."""
        entropy, wrong, counted = 0.0, 0, 0
        for example in self._valid:
            logits, _ = self.module(torch.from_numpy(example.clipped)[None])
            target = torch.from_numpy(example.target)
            valid = target != IGNORED
            entropy += float(
                functional.cross_entropy(
                    logits[0], target, reduction="sum", ignore_index=IGNORED
                )
            )
            wrong += int((logits[0].argmax(-1) != target)[valid].sum())
            counted += int(valid.sum())
        if not counted:
            return {}
        name = "cross_entropy" if self.patience is None else "score"
        return {name: entropy / counted, "frame_error": wrong / counted}

    def _initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """Return the state before each sequence: zeros, or that after another one.

        A stream lasts for hours, a training sequence for a second: from zeros alone
        the network would not be trained on the states it has in a stream.
        """
        state = self.module.initial_state(batch_size)
        order = torch.from_numpy(self.rng.permutation(batch_size))
        used = self.rng.random(batch_size) < self._config.used_states
        if self.carried:
            rows = torch.from_numpy(used)
            for name, fresh in state.items():
                fresh[rows] = self.carried[name][order][rows]
        return state

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw augmented sequences, from recordings in proportion to their length.

        Returns
        -------
        frames : float32[batch, T, n_bins]
        target : int64[batch, T]
        weight : float32[batch, T]
        """
        config = self._config
        shape = (config.batch_size, config.sequence_length)
        frames = np.zeros((*shape, self._train[0].frames.shape[1]), np.float32)
        target = np.full(shape, IGNORED, np.int64)
        weight = np.zeros(shape, np.float32)
        for row in range(config.batch_size):
            self._fill_sequence(frames[row], target[row], weight[row])
        changed = self._augment(frames, self.rng)
        return (
            torch.from_numpy(changed),
            torch.from_numpy(target),
            torch.from_numpy(weight),
        )

    def _fill_sequence(
        self, frames: Float32, target: NDArray[np.int64], weight: Float32
    ) -> None:
        """Fill one sequence with a part of a recording, or with short ones and pauses.

        Recordings that are shorter than a sequence follow each other as in a stream.
        Pauses are frames of 0 before augmentation: they are the only silence in
        datasets of recordings that are cut at the sounds.
        """
        config, at = self._config, 0
        while at < len(frames):
            number = int(self.rng.choice(len(self._train), p=self._share))
            example = self._train[number]
            room = len(frames) - at
            surplus = len(example.frames) - config.sequence_length
            start = int(self.rng.integers(surplus + 1)) if surplus > 0 and not at else 0
            n = min(len(example.frames) - start, room)
            source, destination = slice(start, start + n), slice(at, at + n)
            frames[destination] = example.frames[source]
            target[destination] = example.target[source]
            weight[destination] = self._weights[number][source]
            if start:  # the state is not warmed up yet
                weight[: config.warm_up] = 0.0
            at += n
            pause = slice(at, at + int(self.rng.integers(config.pause_frames + 1)))
            target[pause], weight[pause] = 0, 1.0
            at = pause.stop


def frame_weights(example: LabelledFrames, config: ClassifierConfig) -> Float32:
    """Return the weight of each frame in the loss, float32[n_frames].

    Frames at boundaries have weight `edge_weight`: annotators disagree there, and
    the detector decides, not the classifier. With the objective `last` only silence
    and the last frame of each segment have a weight.
    """
    target = example.target
    weight = np.ones(len(target), np.float32)
    if config.objective == "last":
        weight[target > 0] = 0.0
        for span in example.spans:
            weight[span.stop - 1] = span.stop - span.first
    else:
        edges = np.flatnonzero(np.diff(target)) + 1
        for shift in range(-config.edge_frames, config.edge_frames):
            near = np.clip(edges + shift, 0, len(target) - 1)
            weight[near] = config.edge_weight
    weight[target == IGNORED] = 0.0
    return weight


def _optimizer(
    module: torch.nn.Module, config: ClassifierConfig
) -> torch.optim.Optimizer:
    """Build the configured optimizer."""
    rate = config.learning_rate
    groups = [{"params": list(module.parameters()), "initial_lr": rate}]
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, weight_decay=config.weight_decay)
        case "adam":
            return torch.optim.Adam(groups, lr=rate)
        case _:
            return torch.optim.RMSprop(groups, lr=rate)
