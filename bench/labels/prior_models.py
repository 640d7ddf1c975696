"""Data and models of bench/labels/prior.py: forecasts, n-grams, classifiers."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurovocal.engine.contracts.bundle import ClassifierSpec
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.classifier.calibration import log_softmax
from neurovocal.models.classifier.forecast.network import Phrase, split_phrases
from neurovocal.models.classifier.forecast.prior import ClassifiedRecordings
from neurovocal.models.classifier.forecast.training import ForecastTask
from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.data.frames import LabelledFrames, read_samples
from neurovocal.models.data.prepare import PreparedDataset, prepare_dataset
from neurovocal.models.data.targets import targets_of
from neurovocal.models.rnn_rbm.network import RecurrentLayer, RnnRbm
from neurovocal.models.rnn_rbm.training import RnnRbmTask, trim_songs
from neurovocal.models.toolkit.loop import Budget, StopFlag, fit
from neurovocal.models.toolkit.recipe import (
    ClassifierConfig,
    ForecastConfig,
    RnnRbmConfig,
    SplitConfig,
    TrainConfig,
)

UPDATES = 300


@dataclass(frozen=True, slots=True)
class Data:
    """A prepared dataset with the frames of the test recordings."""

    prepared: PreparedDataset
    test: list[LabelledFrames]
    frame_ms: float

    @property
    def n_units(self) -> int:
        """Number of units without silence."""
        return len(self.prepared.units.names) - 1

    @property
    def silent(self) -> ClassifiedRecordings:
        """Test recordings without a classifier."""
        logs = [np.zeros((len(m.frames), self.n_units + 1)) for m in self.test]
        spec = ClassifierSpec(units=self.prepared.units.names, state={})
        return ClassifiedRecordings(self.test, logs, self.prepared.front_end, spec)


@cache
def load(name: str, folder: Path) -> Data:
    """Prepare a dataset, split by recording as `neurovocal train` does with seed 0."""
    column = "split" if name.startswith("finch") else None
    config = TrainConfig(split=SplitConfig(column=column))
    data = prepare_dataset(
        read_dataset(folder / name, None), config, lambda share, note: None
    )
    front_end = data.front_end
    bare = {k: v for k, v in front_end.options.items() if k != "scaling"}
    features = build_front_end(front_end.model_copy(update={"options": bare}), Path())
    rate = front_end.sample_rate
    test = []
    for recording in data.split.test:
        raw = frames_of(features, read_samples(recording, rate))
        found = targets_of(
            *(recording, data.units, len(raw), rate),
            *(front_end.hop_length, front_end.frame_length),
        )
        scaled = ((raw - data.offset) * data.gain).astype(np.float32)
        test.append(LabelledFrames(recording, scaled, *found))
    return Data(data, test, 1000 * front_end.hop_length / rate)


def trained_forecast(
    data: Data,
    train: list[LabelledFrames],
    config: ForecastConfig,
    seed: int,
    path: Path,
) -> ForecastTask:
    """Train a forecast on `train` recordings."""
    phrases = (
        split_phrases(part, data.frame_ms, config.pause_ms)
        for part in (train, data.prepared.valid)
    )
    task = ForecastTask(config, *phrases, data.n_units, seed)
    fit(task, path, Budget(None), StopFlag(), 1e9)
    path.unlink()
    return task


def n_gram(order: int, n: int, train: list[Phrase], strength: float) -> Callable:
    """Return log-probabilities of a phrase's units given the `order` previous units.

    A context's counts are mixed with `strength` pseudo-counts of the shorter context.
    """
    counts: dict[tuple[int, ...], Any] = {}

    def contexts(units: Any) -> Iterator[tuple[int, list[int]]]:
        padded = [n] * order + units.tolist()
        for at, unit in enumerate(units):
            yield unit, padded[at : at + order]

    for phrase in train:
        for unit, before in contexts(phrase.units):
            for start in range(order + 1):
                row = counts.setdefault(tuple(before[start:]), np.zeros(n))
                row[unit] += 1

    def logs(phrase: Phrase) -> Any:
        rows = []
        for _, before in contexts(phrase.units):
            p = np.full(n, 1 / n)
            for start in range(order, -1, -1):
                row = counts.get(tuple(before[start:]), np.zeros(n))
                p = (row + strength * p) / (row.sum() + strength)
            rows.append(np.log(p))
        return np.stack(rows)

    return logs


def choose_recordings(data: Data, seconds: float, seed: int) -> list[LabelledFrames]:
    """Choose recordings in random order, about `seconds` of labelled song."""
    left, chosen = round(1000 * seconds / data.frame_ms), []
    train = data.prepared.train
    for number in np.random.default_rng(seed).permutation(len(train)):
        one = train[number]
        first = max(0, one.spans[0].first - 25)
        stop = min(len(one.frames), one.spans[-1].stop + 25, first + left)
        spans = [
            replace(s, first=s.first - first, stop=s.stop - first)
            for s in one.spans
            if s.stop <= stop
        ]
        part = slice(first, stop)
        chosen.append(
            LabelledFrames(one.recording, one.frames[part], one.target[part], spans)
        )
        left -= stop - first
        if left < 25:
            break
    return chosen


def train_classifier(
    data: Data, train: list[LabelledFrames], seed: int, path: Path, start: RnnRbm | None
) -> Callable:
    """Train the recommended classifier with fewer updates; return its log-posteriors.

    With `start`, its recurrent layer has the size and the initial weights of that of an
    RNN-RBM.
    """
    config = ClassifierConfig(updates=UPDATES)
    prepared = data.prepared
    augmenter = Augmenter(config.augment, prepared.offset, prepared.gain, True)
    task = ClassifierTask(
        config, train, prepared.valid, data.n_units + 1, augmenter, seed
    )
    if start is not None:
        torch.manual_seed(seed)
        layer = start.layers[0]
        assert isinstance(layer, RecurrentLayer)
        module: Any = PretrainedClassifier(layer, data.n_units, config.dropout)
        task.module = module
        rate = config.learning_rate
        groups = [{"params": list(module.parameters()), "initial_lr": rate}]
        task.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    fit(task, path, Budget(None), StopFlag(), 1e9)
    path.unlink()

    def logs(example: LabelledFrames) -> Any:
        with torch.no_grad():
            logits = task.module(torch.from_numpy(example.clipped)[None])[0][0]
        return log_softmax(logits.numpy())

    return logs


class PretrainedClassifier(torch.nn.Module):
    """Classifier with a recurrent layer that starts from the RNN-RBM's weights.

    Replaces `neurovocal.models.classifier.network.Classifier` in its task.
    """

    def __init__(self, layer: RecurrentLayer, n_units: int, dropout: float) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer).requires_grad_(True)
        self.dropout = torch.nn.Dropout(dropout)
        self.readout = torch.nn.Linear(layer.n_recurrent, n_units + 1)

    def initial_state(self, batch_size: int = 1) -> dict[str, torch.Tensor]:
        """Return zeros."""
        return {"u": torch.zeros(batch_size, self.layer.n_recurrent)}

    def forward(self, frames: Any, state: Any = None) -> Any:
        """Return logits [batch, T, n_units + 1] and the state after the last frame."""
        u = self.initial_state(len(frames))["u"] if state is None else state["u"]
        states = self.layer(frames.clamp(0, 1).transpose(0, 1), u).transpose(0, 1)
        return self.readout(self.dropout(states)), {"u": states[:, -1]}


def rnn_rbm(data: Data, path: Path) -> RnnRbm:
    """Train the recommended RNN-RBM on all training recordings; stored for all cells.

    Labels are used only to trim the silence around songs.
    """
    config = RnnRbmConfig()
    per_s = 1000 / data.frame_ms
    songs = (
        trim_songs(part, config.trim_silence_s, per_s)
        for part in (data.prepared.train, data.prepared.valid)
    )
    task = RnnRbmTask(config, *songs, 0)
    fit(task, path, Budget(None), StopFlag(), 15.0)
    return task.module
