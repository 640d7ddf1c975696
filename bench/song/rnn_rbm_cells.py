"""Cells of bench/song/rnn_rbm.py: one training of the RNN-RBM, and its measures."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from density import (
    DensityTask,
    LinearDensity,
    Whitening,
    conditional_gaussians,
    log_density,
)
from foreign_sounds import (
    background_of,
    in_active_stretches,
    in_annotated_segments,
    level_of,
    plugin_surprise,
    replace_by_noise,
    scale_to_level,
    scores_of,
    unannotated_recordings,
)
from measures import (
    SongRegressorTask,
    decode,
    one_step_errors,
    roc_auc,
    stack_frames,
)

from neurovocal.engine.contracts.bundle import MANIFEST_NAME, Bundle, load_bundle
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.data.datasets import AnnotatedRecording, read_dataset
from neurovocal.models.data.frames import read_samples
from neurovocal.models.data.prepare import PreparedDataset, prepare_dataset
from neurovocal.models.data.targets import targets_of
from neurovocal.models.rnn_rbm.annealing import AnnealingOptions, LikelihoodError
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.training import trim_songs
from neurovocal.models.toolkit.loop import Budget, fit, stop_on_signal
from neurovocal.models.toolkit.measures import LinearPredictor
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import Phase, RnnRbmConfig, TrainConfig
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.workspace import TrainingJob

SKIP = 16
WHITENED_BY = 4
FOREIGN = {"Bird0": "finch_bird0", "zebra finch": "zebra_finch_G402"}
EFFORTS = (AnnealingOptions(1000, 2, 200), AnnealingOptions(4000, 2, 400))
DENSITY = RnnRbmConfig(
    visible="gaussian",
    visible_sampling="sampled",
    hidden_scalar=1.0,
    phases=[
        Phase(
            objective="deterministic", updates=600, learning_rate=2e-3, decay="cosine"
        ),
        Phase(
            objective="contrastive",
            updates=500,
            learning_rate=5e-4,
            learning_rate_w=3e-3,
            decay="cosine",
        ),
    ],
)


@dataclass(frozen=True)
class BenchOptions:
    """Folders of recordings and results, and the recipe."""

    data: Path
    out: Path
    recipe: TrainConfig

    @property
    def network(self) -> RnnRbmConfig:
        """Recipe of the RNN-RBM."""
        return self.recipe.rnn_rbm or RnnRbmConfig()


@dataclass(frozen=True)
class SongData:
    """Split and bundle of a seed, and the frames of the test day."""

    seed: int
    data: PreparedDataset
    bundle: Bundle
    test: list[np.ndarray]
    units: list[np.ndarray]

    @property
    def voiced(self) -> list[np.ndarray]:
        """Frames in an annotated segment of any unit."""
        return [units != 0 for units in self.units]


def load_song_data(place: BenchOptions, seed: int, reporter: Reporter) -> SongData:
    """Split, train the RNN-RBM unless it is stored, and read the test day."""
    folder, out = place.data / "finch_gy6or6", place.out / f"bundle-{seed}"
    config = place.recipe.model_copy(update={"classifier": None, "seed": seed})
    if not (out / MANIFEST_NAME).is_file():
        with stop_on_signal() as stop:
            train_bundle(TrainingJob(folder, out), config, reporter, stop)
    bundle = load_bundle(out)
    with reporter.stage("frames") as watch:
        data = prepare_dataset(read_dataset(folder), config, watch)
    front_end = bundle.manifest.front_end
    features = build_front_end(front_end, out)
    test, units = [], []
    for recording in data.split.test:
        frames = frames_of(features, read_samples(recording, front_end.sample_rate))
        target, _ = targets_of(
            recording,
            data.units,
            len(frames),
            front_end.sample_rate,
            front_end.hop_length,
            front_end.frame_length,
        )
        test.append(frames)
        units.append(target)
    return SongData(seed, data, bundle, test, units)


def measure_step(
    song: SongData, place: BenchOptions, reporter: Reporter
) -> dict[str, Any]:
    """Measure one-step errors of the RNN-RBM and of the baselines."""
    session, zeros = scoring(song.bundle)
    train = [m.clipped for m in song.data.train]
    predictors: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "RNN-RBM": lambda frames: session.run(frames=frames, u=zeros)["prediction"],
        "persistence": lambda frames: frames,
    }
    for order in (1, 4, 8):
        predictors[f"AR({order})"] = LinearPredictor.fit(train, order).predict
    predictors["GRU regressor"] = regressor(song, place, reporter)
    return {
        name: asdict(one_step_errors(predict, song.test, song.voiced, SKIP))
        for name, predict in predictors.items()
    }


def regressor(
    song: SongData, place: BenchOptions, reporter: Reporter
) -> Callable[[np.ndarray], np.ndarray]:
    """Train the recurrent part on squared error, with equal updates and songs."""
    first = place.network.phases[0]
    updates = sum(phase.updates for phase in place.network.phases)
    phases = [first.model_copy(update={"updates": updates})]
    config = place.network.model_copy(update={"phases": phases})
    task = SongRegressorTask(config, *songs(song, config), song.seed)
    model = trained(task, place.out / f"regressor-{song.seed}.pt", reporter)

    @torch.no_grad()
    def predict(frames: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(frames)[:, None]
        u = model.states(v, model.initial_state())[:, -1, 0]
        return torch.sigmoid(model.biases(u)[0]).numpy()

    return predict


def measure_decode(
    song: SongData, place: BenchOptions, reporter: Reporter
) -> dict[str, Any]:
    """Measure linear read-outs of the unit from frames and from states."""
    session, zeros = scoring(song.bundle)
    torch.manual_seed(song.seed)
    fresh = RnnRbm(place.network, song.test[0].shape[1]).eval()

    @torch.no_grad()
    def untrained(frames: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(frames)[:, None]
        return fresh.states(v, fresh.initial_state())[:, -1, 0].numpy()

    features = {
        "frame": lambda frames: frames,
        "8 frames": lambda frames: stack_frames(frames, 8),
        "untrained u": untrained,
        "u": lambda frames: session.run(frames=frames, u=zeros)["states"][:, -1],
    }
    train_units = np.concatenate([m.target for m in song.data.train])
    found = {}
    for name, feature in features.items():
        reporter.print_message(f"  read-out of {name}")
        train = np.concatenate([feature(m.clipped) for m in song.data.train])
        test = np.concatenate([feature(frames) for frames in song.test])
        units = np.concatenate(song.units)
        n_units = len(song.data.units.names)
        found[name] = asdict(decode(train, train_units, test, units, n_units))
    return found


def measure_surprise(
    song: SongData, place: BenchOptions, reporter: Reporter
) -> dict[str, Any]:
    """Measure ROC areas of foreign sounds against the bird's own of the test day."""
    bundle, rate = song.bundle, song.bundle.manifest.front_end.sample_rate
    background = background_of(
        [in_annotated_segments(m.recording, rate) for m in song.data.train[:3]],
        2 * rate,
    )
    level = level_of([in_annotated_segments(r, rate) for r in song.data.split.valid])
    own = [in_annotated_segments(r, rate) for r in song.data.split.test]
    rng = np.random.default_rng(song.seed)
    kinds = {"noise bursts": [replace_by_noise(sound, rng) for sound in own]}
    for name, folder in FOREIGN.items():
        heard = [r for r in read_dataset(place.data / folder).recordings]
        kinds[name] = [in_annotated_segments(r, rate) for r in evenly_spread(heard, 12)]
    digits = read_dataset(place.data / "spoken_digits").recordings
    kinds["spoken digits"] = [
        in_annotated_segments(r, rate) for r in evenly_spread(digits, 60)
    ]
    sounds = unannotated_recordings(place.data / "env_sounds")
    kinds["environment"] = [in_active_stretches(r, rate) for r in sounds]
    found: dict[str, Any] = {}
    for measure in ("divergence", "free_energy"):
        score = plugin_surprise(bundle, surprise=measure)
        known = scores_of(own, bundle, background, score)
        for name, heard in kinds.items():
            reporter.print_message(f"  {measure}: {name}")
            foreign = scores_of(scale_to_level(heard, level), bundle, background, score)
            found.setdefault(measure, {})[name] = {
                "segments": len(foreign.mean),
                **{
                    how: roc_auc(getattr(known, how), getattr(foreign, how))
                    for how in ("mean", "max", "frames")
                },
            }
    return found


def measure_density(
    song: SongData, place: BenchOptions, reporter: Reporter
) -> dict[str, Any]:
    """Measure log densities: linear prediction, recurrent part alone, RNN-RBM."""
    train, valid = songs(song, DENSITY)
    n_frames = sum(max(0, len(s) - SKIP) for s in song.test)
    order = np.random.Generator(np.random.SFC64(1)).permutation(n_frames)
    some = torch.from_numpy(order[:1500])  # the same frames for every model
    found: dict[str, Any] = {}
    for n in (1, 4, 8):
        linear = LinearDensity.fit(train, n)
        density = np.concatenate([linear.log_density(s)[SKIP - n :] for s in song.test])
        value = float(density[some.numpy()].mean())
        found[f"AR({n})"] = {"low": value, "high": value, "frames": len(some)}
        if n == WHITENED_BY:
            whitening = Whitening.fit(train, linear)
    white = [[whitening(s) for s in part] for part in (train, valid, song.test)]
    parts = {"recurrent part": DENSITY.phases[:1], "RNN-RBM": DENSITY.phases}
    for name, phases in parts.items():
        config = DENSITY.model_copy(update={"phases": phases})
        task = DensityTask(config, white[0], white[1], song.seed)
        stem = f"density-{len(phases)}-{song.seed}.pt"
        model = trained(task, place.out / stem, reporter)
        rbms, x = conditional_gaussians(model, white[2], SKIP)
        for effort in EFFORTS:
            rng = np.random.Generator(np.random.SFC64(1))
            try:
                likelihood = log_density(
                    model, rbms[some], x[some], whitening, effort, rng
                )
            except LikelihoodError as error:
                found[name] = {"refused": str(error)}
                reporter.print_message(f"  {name}: {error}")
                continue
            found[name] = asdict(likelihood.bracket) | {"frames": likelihood.n_frames}
            break
    return found


CELLS = {
    "step": measure_step,
    "decode": measure_decode,
    "surprise": measure_surprise,
    "density": measure_density,
}


def trained(task: Any, path: Path, reporter: Reporter) -> RnnRbm:
    """Train a task, or resume its training; return the network."""
    with stop_on_signal() as stop, reporter.stage(task.name) as watch:
        fit(task, path, Budget(), stop, 15.0, lambda share, *_: watch(min(1.0, share)))
    return task.module


def songs(song: SongData, config: RnnRbmConfig) -> tuple[list[np.ndarray], ...]:
    """Songs for training and validation of an RNN-RBM of this recipe."""
    front_end = song.data.front_end
    rate = front_end.sample_rate / front_end.hop_length
    keep = config.trim_silence_s
    return tuple(
        [part[:] for part in trim_songs(materials, keep, rate)]
        for materials in (song.data.train, song.data.valid)
    )


def scoring(bundle: Bundle) -> tuple[Session, np.ndarray]:
    """Scoring graph and its initial state."""
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    zeros = np.zeros((spec.n_layers, spec.n_recurrent), np.float32)
    return Session(bundle.path(spec.file)), zeros


def evenly_spread(recordings: Any, n: int) -> list[AnnotatedRecording]:
    """Choose about `n` annotated recordings, evenly spread, without the first ones."""
    heard = [r for r in recordings if r.annotations]
    return heard[1 :: max(1, len(heard) // n)]
