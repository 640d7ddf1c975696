"""Export of trained networks to a bundle: graphs, golden vectors and manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.text import plain
from neurovocal.models.classifier.adjust import CalibratedClassifier
from neurovocal.models.classifier.cross_validation import CrossValidated
from neurovocal.models.classifier.forecast.graph import TrainedForecast, write_forecast
from neurovocal.models.classifier.forecast.prior import ClassifiedRecordings
from neurovocal.models.classifier.graph import classifier_graph
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.data.frames import SCALING_FILE, LabelledFrames
from neurovocal.models.data.targets import Units
from neurovocal.models.rnn_rbm.graph import sampling_graph, scoring_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.residual import collect_errors, fit_residual
from neurovocal.models.toolkit.files import write_file, write_npz
from neurovocal.models.toolkit.onnx_session import GraphExport
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import ClippedRows, Rows
from neurovocal.models.training.export.parity import (
    check_classifier,
    check_rnn_rbm,
    stable_noise,
    torch_outputs,
)

GOLDEN_FRAMES = 500
GOLDEN_STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """Trained networks and the data that the export computes with."""

    config: TrainConfig
    front_end: FrontEnd
    offset: Float32
    gain: Float32
    units: Units
    valid: list[LabelledFrames]
    classifier: Classifier | None
    validated: CrossValidated | None
    calibrated: CalibratedClassifier | None
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
    """Write graphs, golden vectors and manifest, and check the graphs against torch.

    Parameters
    ----------
    folder : Path
        Folder of the bundle, empty but for ``scaling.npz``.
    trained : TrainingResult
        Networks to export.
    about : dict
        ``name``, ``species``, ``licence`` and ``attribution`` of the manifest.
    training : dict
        Data, split, seed and command of the training, for the manifest.

    Raises
    ------
    BundleError
        torch and ONNX Runtime disagree, or a state does not contract.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_scaling(folder, trained.offset, trained.gain)
    frames = golden_frames(trained.valid)
    export = GraphExport(folder, golden={"frames": frames})
    rnn_rbm, forecast, calibrated = None, None, trained.calibrated
    if trained.classifier is not None:
        _write_classifier(export, trained.classifier, frames)
        if trained.forecast is not None:
            forecast = _write_forecast(export, trained)
    if trained.rnn_rbm is not None:
        rnn_rbm = _write_rnn_rbm(export, trained, frames)
    write_npz(folder / "golden.npz", export.golden)
    manifest = Manifest(
        **about,
        front_end=trained.front_end,
        detector=calibrated.detector if calibrated else None,
        classifier=calibrated.spec if calibrated else None,
        rnn_rbm=rnn_rbm,
        forecast=forecast,
        training={**training, "parity": _rounded(export.parity)},
    )
    return write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest with the checksums of all other files of the folder."""
    digests = {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST_NAME
    }
    complete = manifest.model_copy(update={"files": digests})
    text = safe_yaml.dump(complete.model_dump(mode="json", by_alias=True))
    write_file(folder / MANIFEST_NAME, plain(text).encode())
    return Bundle(folder, complete)


def write_scaling(folder: Path, offset: Float32, gain: Float32) -> None:
    """Write the scaling of the front end to the folder of a bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"offset": offset, "gain": gain}
    write_npz(folder / SCALING_FILE, arrays, compressed=False)


def golden_frames(examples: Sequence[LabelledFrames]) -> Float32:
    """Select `GOLDEN_FRAMES` frames with song, repeated if there are too few.

    Raises
    ------
    ConfigError
        There is no frame.
    """
    parts = []
    for example in examples:
        first = example.spans[0].first if example.spans else 0
        parts.append(ClippedRows.select(example.frames, max(0, first - 25))[:])
        if sum(map(len, parts)) >= GOLDEN_FRAMES:
            break
    frames = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    if not len(frames):
        raise ConfigError("the validation recordings are shorter than one frame")
    times = -(-GOLDEN_FRAMES // len(frames))
    return np.ascontiguousarray(np.tile(frames, (times, 1))[:GOLDEN_FRAMES])


def _write_classifier(export: GraphExport, model: Classifier, frames: Float32) -> None:
    """Write and check the classifier's graph."""
    model.eval()
    path = export.save(classifier_graph(model), "classifier.onnx")
    export.parity["classifier"] = check_classifier(model, path, frames)
    with torch.no_grad():
        export.golden["logits"] = model(torch.from_numpy(frames)[None])[0][0].numpy()


def _write_forecast(export: GraphExport, trained: TrainingResult) -> ForecastSpec:
    """Write and check the forecast's graph; returns its manifest entry."""
    config = trained.config.forecast
    assert config is not None
    assert trained.forecast is not None
    assert trained.classifier is not None
    assert trained.calibrated is not None
    validated = trained.validated
    assert validated is not None
    # The classifier itself was trained on these recordings.
    first = len(validated.examples) - len(trained.valid)
    logs = [validated.log_posteriors(first + n) for n in range(len(trained.valid))]
    recordings = ClassifiedRecordings(
        trained.valid, logs, trained.front_end, trained.calibrated.spec
    )
    return write_forecast(export, trained.forecast, config, recordings)


def _write_rnn_rbm(
    export: GraphExport, trained: TrainingResult, frames: Float32
) -> RnnRbmSpec:
    """Write and check the RNN-RBM's graphs and fit its residual noise.

    Returns
    -------
    RnnRbmSpec
        Manifest entry.
    """
    model, config = trained.rnn_rbm, trained.config.rnn_rbm
    assert model is not None
    assert config is not None
    model.eval()
    scoring = export.save(scoring_graph(model), "rnn_rbm.onnx")
    sampling = export.save(sampling_graph(model), "rnn_rbm_sample.onnx")
    rng = np.random.default_rng(trained.config.seed)
    noise = stable_noise(model, frames, GOLDEN_STEPS, rng)
    export.parity["rnn_rbm"] = check_rnn_rbm(model, scoring, sampling, frames, noise)
    expected = torch_outputs(model, frames, noise)
    export.golden.update(
        {
            "free_energy": expected["free_energy"],
            "prediction": expected["prediction"],
            "states_last": expected["states"][-1],
            "noise": noise,
            "mean": expected["mean"],
        }
    )
    train_errors, valid_errors = (
        collect_errors(model, songs, config.gibbs_steps, rng)
        for songs in (trained.train_songs, trained.valid_songs)
    )
    residual = fit_residual(
        train_errors, valid_errors, config.residual_components, trained.config.seed
    )
    residual |= {
        name: np.float32(config.residual_level) * residual[name]
        for name in ("mixture_mean", "mixture_chol")
        if name in residual
    }
    write_npz(export.folder / "residual.npz", residual)
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
    """Compute mean and standard deviation of the free energy per frame, in nats."""
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


def _rounded(parity: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Round differences to two digits."""
    return {
        part: {name: float(f"{value:.2g}") for name, value in found.items()}
        for part, found in parity.items()
    }
