"""Encoders that a training of `pretraining.py` starts from.

Four are trained on the song of other animals: without labels to predict the next
frames (`next`), frames and bands that were hidden (`masked`), or to tell the frame that
follows from others (`contrastive`, van den Oord et al. 2018); with labels to name the
units of the other birds (`supervised`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.network import Classifier, GruEncoder
from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.toolkit.optim import guard_gradients, rate_factor, set_rates
from neurovocal.models.toolkit.recipe import AugmentConfig, ClassifierConfig

STARTS = ("scratch", "next", "masked", "contrastive", "supervised")
_AHEAD = {"next": (1, 3, 6), "contrastive": (2, 5, 10)}
_WAIT = 2  # frames after a hidden one that are heard before it is asked for
_CODE = 32  # numbers of a frame's code (contrastive)
_OTHERS = 255  # frames that the right one is told from
_RATE = 3e-3


def pretrained(
    start: str,
    song: Sequence[list[LabelledFrames]],
    config: ClassifierConfig,
    updates: int,
    seed: int,
) -> dict[str, Tensor]:
    """Return the weights of an encoder that was trained on sets of recordings.

    Parameters
    ----------
    start : str
        One of `STARTS` but the first.
    song : sequence of list of LabelledFrames
        Recordings of each animal, scaled for themselves.
    config : ClassifierConfig
        Sizes and augmentation.
    updates, seed : int
    """
    if start == "supervised":
        return _named(song, config, updates, seed)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n_bins = song[0][0].frames.shape[1]
    encoder = GruEncoder(n_bins, config.n_hidden, config.n_layers, config.dropout)
    objective = {"next": _Next, "masked": _Masked, "contrastive": _Contrastive}[start](
        n_bins, config.n_hidden
    )
    parameters = [*encoder.parameters(), *objective.parameters()]
    groups = [{"params": parameters, "initial_lr": _RATE}]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, weight_decay=config.weight_decay)
    for update in range(updates):
        set_rates(optimizer, rate_factor("cosine", update / updates))
        clean = torch.from_numpy(_sequences(song, config, rng))
        loss = objective(encoder, clean, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if guard_gradients(parameters, "skip", config.clip):
            optimizer.step()
        if update % 100 == 0:
            print(f"  {start} {update}: {float(loss.detach()):.4f}", flush=True)
    return encoder.state_dict()


def augmenter(n_bins: int, offset: Float32, gain: Float32) -> Augmenter:
    """Return the recipe's augmentation of frames with this scaling."""
    assert len(gain) == n_bins
    return Augmenter(AugmentConfig(), offset, gain, logarithmic=True)


def _named(
    song: Sequence[list[LabelledFrames]],
    config: ClassifierConfig,
    updates: int,
    seed: int,
) -> dict[str, Tensor]:
    """Train a classifier on the units of all animals together."""
    examples = [example for animal in song for example in animal if example.spans]
    n_units = 1 + max(s.unit for e in examples for s in e.spans)
    n_bins = examples[0].frames.shape[1]
    nothing, as_it_is = np.zeros(n_bins, np.float32), np.ones(n_bins, np.float32)
    # The animals differ in their scaling: noise alone.
    plain = Augmenter(AugmentConfig(), nothing, as_it_is, logarithmic=False)
    changed = config.model_copy(update={"updates": updates})
    task = ClassifierTask(changed, examples, [], n_units, plain, seed)
    for update in range(updates):
        task.begin(update / updates)
        loss = task.step(update / updates)
        if update % 100 == 0:
            print(f"  supervised {update}: {loss:.4f}", flush=True)
    assert isinstance(task.module, Classifier)
    return task.module.encoder.state_dict()


def _sequences(
    song: Sequence[list[LabelledFrames]],
    config: ClassifierConfig,
    rng: np.random.Generator,
) -> Float32:
    """Draw sequences of 64 frames, each animal in proportion to its square root."""
    lengths = [np.array([len(e.frames) for e in animal], float) for animal in song]
    share = np.sqrt([each.sum() for each in lengths])
    n, length = config.batch_size, config.sequence_length
    batch = np.zeros((n, length, song[0][0].frames.shape[1]), np.float32)
    for row in range(n):
        animal = int(rng.choice(len(song), p=share / share.sum()))
        weights = lengths[animal] / lengths[animal].sum()
        frames = song[animal][int(rng.choice(len(weights), p=weights))].frames
        first = int(rng.integers(max(1, len(frames) - length)))
        part = frames[first : first + length]
        batch[row, : len(part)] = part
    return np.clip(batch, 0.0, 1.0)


def _heard(clean: Tensor, rng: np.random.Generator) -> Tensor:
    """Return frames of another level with noise, as augmentation makes them."""
    level = rng.normal(0, 0.05, (len(clean), 1, 1)).astype(np.float32)
    noise = rng.normal(0, 0.03, clean.shape).astype(np.float32)
    return (clean + torch.from_numpy(level + noise)).clamp(0.0, 1.0)


def _run(encoder: GruEncoder, frames: Tensor) -> Tensor:
    """Return the states of an encoder that begins with zeros."""
    zeros = {n: torch.zeros(len(frames), *s) for n, s in encoder.shapes.items()}
    return encoder(frames, zeros)[0]


class _Next(nn.Module):
    """Predicts the difference of frames 1, 3 and 6 later; absolute error."""

    def __init__(self, n_bins: int, n_hidden: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(n_hidden, n_bins) for _ in _AHEAD["next"])

    def forward(
        self, encoder: GruEncoder, clean: Tensor, rng: np.random.Generator
    ) -> Tensor:
        states = _run(encoder, _heard(clean, rng))
        losses = []
        for ahead, head in zip(_AHEAD["next"], self.heads, strict=True):
            losses.append((head(states[:, :-ahead]) - clean[:, ahead:]).abs().mean())
        return torch.stack(losses).sum()


class _Masked(nn.Module):
    """Predicts hidden frames and bands, two frames later; absolute error."""

    def __init__(self, n_bins: int, n_hidden: int) -> None:
        super().__init__()
        self.head = nn.Linear(n_hidden, n_bins)

    def forward(
        self, encoder: GruEncoder, clean: Tensor, rng: np.random.Generator
    ) -> Tensor:
        n, length, n_bins = clean.shape
        hidden = torch.zeros(clean.shape, dtype=torch.bool)
        for row in range(n):
            for _ in range(4):
                at, wide = int(rng.integers(length)), int(rng.integers(1, 5))
                hidden[row, at : at + wide] = True
            at, wide = int(rng.integers(n_bins)), int(rng.integers(8, 33))
            hidden[row, :, at : at + wide] = True
        states = _run(encoder, _heard(clean, rng).masked_fill(hidden, 0.0))
        error = (self.head(states[:, _WAIT:]) - clean[:, :-_WAIT]).abs()
        return error[hidden[:, :-_WAIT]].mean()


class _Contrastive(nn.Module):
    """Tells the code of the frame 2, 5 and 10 later from those of others (InfoNCE)."""

    def __init__(self, n_bins: int, n_hidden: int) -> None:
        super().__init__()
        self.code = nn.Linear(n_bins, _CODE)
        self.heads = nn.ModuleList(
            nn.Linear(n_hidden, _CODE) for _ in _AHEAD["contrastive"]
        )

    def forward(
        self, encoder: GruEncoder, clean: Tensor, rng: np.random.Generator
    ) -> Tensor:
        heard = _heard(clean, rng)
        states, codes = _run(encoder, heard), self.code(_heard(clean, rng))
        pool = codes.flatten(0, 1)
        losses = []
        for ahead, head in zip(_AHEAD["contrastive"], self.heads, strict=True):
            wanted = head(states[:, :-ahead]).flatten(0, 1)
            right = (wanted * codes[:, ahead:].flatten(0, 1)).sum(-1, keepdim=True)
            drawn = torch.from_numpy(rng.integers(len(pool), size=_OTHERS))
            scores = torch.cat([right, wanted @ pool[drawn].T], dim=1) / _CODE**0.5
            target = torch.zeros(len(scores), dtype=torch.long)
            losses.append(functional.cross_entropy(scores, target))
        return torch.stack(losses).sum()
