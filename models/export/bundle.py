"""From trained networks to a verified bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml

from neurovocal.engine.contracts.bundle import (
    MANIFEST_NAME,
    Bundle,
    ForecastSpec,
    FrontEnd,
    Manifest,
    RnnRbmSpec,
    sha256,
)
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.adjust import CalibratedClassifier, log_posteriors_of
from neurovocal.models.classifier.graph import classifier_graph
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.data.frames import SCALING_FILE, LabelledFrames
from neurovocal.models.data.split import Units
from neurovocal.models.export.parity import (
    check_classifier,
    check_rnn_rbm,
    stable_noise,
    torch_outputs,
)
from neurovocal.models.forecast.graph import TrainedForecast, write_forecast
from neurovocal.models.forecast.prior import ClassifiedRecordings
from neurovocal.models.rnn_rbm.graph import sampling_graph, scoring_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.residual import collect_errors, fit_residual
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import ClippedRows, Rows

GOLDEN_FRAMES = 500
GOLDEN_STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What training leaves behind: networks and the data that calibrate them."""

    config: TrainConfig
    front_end: FrontEnd
    offset: Float32
    gain: Float32
    units: Units
    valid: list[LabelledFrames]
    classifier: Classifier | None
    adjusted: CalibratedClassifier | None
    rnn_rbm: RnnRbm | None
    forecast: TrainedForecast | None
    train_songs: Sequence[Rows]
    valid_songs: Sequence[Rows]


def write_bundle(
    folder: Path,
    trained: TrainingResult,
    about: dict[str, Any],
    training: dict[str, Any],
) -> Bundle:
    """Write graphs, golden vectors and manifest, and prove that they agree.

    Parameters
    ----------
    folder : Path
        An empty folder; ``scaling.npz`` may already be there.
    trained : TrainingResult
    about : dict
        ``name``, ``species``, ``licence``, ``attribution`` of the manifest.
    training : dict
        Data, split, seed and command.

    Raises
    ------
    BundleError
        torch and ONNX Runtime disagree, or a state does not contract.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_scaling(folder, trained.offset, trained.gain)
    frames = golden_frames(trained.valid)
    golden: dict[str, Float32] = {"frames": frames}
    parity: dict[str, dict[str, float]] = {}
    rnn_rbm, forecast, adjusted = None, None, trained.adjusted
    if trained.classifier is not None:
        _write_classifier(folder, trained, frames, golden, parity)
        if trained.forecast is not None:
            forecast = _write_forecast(folder, trained, golden, parity)
    if trained.rnn_rbm is not None:
        rnn_rbm = _write_rnn_rbm(folder, trained, frames, golden, parity)
    np.savez_compressed(folder / "golden.npz", allow_pickle=False, **golden)
    manifest = Manifest(
        **about,
        front_end=trained.front_end,
        detector=adjusted.detector if adjusted else None,
        classifier=adjusted.spec if adjusted else None,
        rnn_rbm=rnn_rbm,
        forecast=forecast,
        training={**training, "parity": _short(parity)},
    )
    return write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest with the checksums of all files beside it."""
    digests = {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST_NAME
    }
    sealed = manifest.model_copy(update={"files": digests})
    text = yaml.safe_dump(
        sealed.model_dump(mode="json"), sort_keys=False, allow_unicode=True
    )
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return Bundle(folder, sealed)


def write_scaling(folder: Path, offset: Float32, gain: Float32) -> None:
    """Write the front end's scaling."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / SCALING_FILE, allow_pickle=False, offset=offset, gain=gain)


def golden_frames(examples: Sequence[LabelledFrames]) -> Float32:
    """Frames with song in them, repeated where there are too few.

    Raises
    ------
    ConfigError
        There is no frame at all.
    """
    parts = []
    for example in examples:
        first = example.spans[0].first if example.spans else 0
        parts.append(ClippedRows.of(example.frames, max(0, first - 25))[:])
        if sum(map(len, parts)) >= GOLDEN_FRAMES:
            break
    frames = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    if not len(frames):
        raise ConfigError("the validation recordings are shorter than one frame")
    times = -(-GOLDEN_FRAMES // len(frames))
    return np.ascontiguousarray(np.tile(frames, (times, 1))[:GOLDEN_FRAMES])


def _write_classifier(
    folder: Path,
    trained: TrainingResult,
    frames: Float32,
    golden: dict[str, Float32],
    parity: dict[str, dict[str, float]],
) -> None:
    model = trained.classifier
    assert model is not None
    model.eval()
    path = folder / "classifier.onnx"
    onnx.save(classifier_graph(model), path)
    parity["classifier"] = check_classifier(model, path, frames)
    with torch.no_grad():
        golden["logits"] = model(torch.from_numpy(frames)[None])[0][0].numpy()


def _write_forecast(
    folder: Path,
    trained: TrainingResult,
    golden: dict[str, Float32],
    parity: dict[str, dict[str, float]],
) -> ForecastSpec:
    config = trained.config.forecast
    assert config is not None
    assert trained.forecast is not None
    assert trained.classifier is not None
    assert trained.adjusted is not None
    logs = [log_posteriors_of(trained.classifier, m) for m in trained.valid]
    heard = ClassifiedRecordings(
        trained.valid, logs, trained.front_end, trained.adjusted.spec
    )
    return write_forecast(folder, trained.forecast, config, heard, golden, parity)


def _write_rnn_rbm(
    folder: Path,
    trained: TrainingResult,
    frames: Float32,
    golden: dict[str, Float32],
    parity: dict[str, dict[str, float]],
) -> RnnRbmSpec:
    model, config = trained.rnn_rbm, trained.config.rnn_rbm
    assert model is not None
    assert config is not None
    model.eval()
    scoring, sampling = folder / "rnn_rbm.onnx", folder / "rnn_rbm_sample.onnx"
    onnx.save(scoring_graph(model), scoring)
    onnx.save(sampling_graph(model), sampling)
    rng = np.random.default_rng(trained.config.seed)
    noise = stable_noise(model, frames, GOLDEN_STEPS, rng)
    parity["rnn_rbm"] = check_rnn_rbm(model, scoring, sampling, frames, noise)
    expected = torch_outputs(model, frames, noise)
    golden |= {
        "free_energy": expected["free_energy"],
        "prediction": expected["prediction"],
        "states_last": expected["states"][-1],
        "noise": noise,
        "mean": expected["mean"],
    }
    missed, missed_valid = (
        collect_errors(model, songs, config.gibbs_steps, rng)
        for songs in (trained.train_songs, trained.valid_songs)
    )
    residual = fit_residual(
        missed, missed_valid, config.residual_components, trained.config.seed
    )
    residual |= {
        name: np.float32(config.residual_level) * residual[name]
        for name in ("mixture_mean", "mixture_chol")
        if name in residual
    }
    np.savez_compressed(folder / "residual.npz", allow_pickle=False, **residual)
    mean, std = free_energy_baseline(model, trained.valid)
    return RnnRbmSpec(
        visible=config.visible,
        n_visible=model.n_visible,
        n_hidden=model.n_hidden,
        n_recurrent=model.n_recurrent,
        n_layers=model.n_layers,
        gates=config.gates,
        gibbs_steps=config.gibbs_steps,
        free_energy_mean=round(mean, 4),
        free_energy_std=round(std, 4),
    )


def free_energy_baseline(
    model: RnnRbm, examples: Sequence[LabelledFrames]
) -> tuple[float, float]:
    """Mean and standard deviation of the free energy per frame, in nats."""
    rows = []
    with torch.no_grad():
        for example in examples:
            v = torch.from_numpy(example.clipped)[:, None]
            if len(v) < 2:
                continue
            u = model.states(v, model.initial_state())[:-1, -1]
            rows.append(model.free_energy(v[1:], *model.biases(u))[:, 0].numpy())
    energies = np.concatenate(rows)
    return float(energies.mean()), max(float(energies.std()), 1e-6)


def _short(parity: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        part: {name: float(f"{value:.2g}") for name, value in found.items()}
        for part, found in parity.items()
    }
