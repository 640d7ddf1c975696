"""Training from a dataset folder to a verified bundle."""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.front_end import build_front_end, frames_of
from neurovocal.engine.manifest import MANIFEST_NAME, Bundle, load_bundle
from neurovocal.engine.types import Float32
from neurovocal.models.adjust import Adjusted, adjust
from neurovocal.models.augment import Augmenter
from neurovocal.models.card import card_page, complete_card
from neurovocal.models.classifier import Classifier
from neurovocal.models.config import TrainConfig
from neurovocal.models.data import Dataset, Recording, read_dataset
from neurovocal.models.evaluate import SKIPPED_FRAMES, evaluate_bundle
from neurovocal.models.export import Trained, seal, write_bundle
from neurovocal.models.export_forecast import TrainedForecast
from neurovocal.models.fit import Budget, History, Interrupted, StopFlag, Task, fit
from neurovocal.models.forecast import phrases_of
from neurovocal.models.frames import read_samples
from neurovocal.models.measure import LinearPredictor
from neurovocal.models.prepare import Prepared, prepare
from neurovocal.models.progress import Reporter
from neurovocal.models.rnn_rbm import RnnRbm
from neurovocal.models.split import seconds
from neurovocal.models.train_classifier import ClassifierTask
from neurovocal.models.train_forecast import ForecastTask
from neurovocal.models.train_rnn_rbm import RnnRbmTask, songs_of
from neurovocal.models.transfer import Origin, origin_of

# Of a time budget: the rest is for frames, export and evaluation.
_DETECTOR_SHARE = 0.05
_CLASSIFIER_SHARE = 0.35
_RNN_RBM_SHARE = 0.5
_FORECAST_SHARE = 0.05
AR_ORDERS = (1, 4, 8)


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for on the command line."""

    dataset: Path
    out: Path
    annotation_format: str | None = None
    minutes: float | None = None
    restart: bool = False
    overwrite: bool = False
    command: str = ""
    origin: str | None = None
    """Bundle to start from: a folder, or the name of one that ships."""

    @property
    def work(self) -> Path:
        """Folder of checkpoints and of the bundle that is not finished."""
        return self.out.with_name(f"{self.out.name}.partial")


def train_bundle(
    job: Job, config: TrainConfig, reporter: Reporter, stop: StopFlag
) -> Bundle:
    """Train, export, verify, evaluate, and only then put the bundle in place.

    Raises
    ------
    ConfigError
        The arguments, the recipe or the data are wrong.
    Interrupted
        `stop` was raised; the same call goes on where this one ended.
    BundleError
        What was trained cannot be exported faithfully.
    """
    _check_out(job)
    torch.set_num_threads(config.threads)
    started = time.monotonic()
    dataset = read_dataset(job.dataset, job.annotation_format)
    origin, scaling = origin_of(job.origin), None
    if origin is not None:
        scaling, config = origin.scaling(config), origin.recipe(config)
    _claim_work(job, config, dataset, origin)
    with reporter.stage("frames") as watch:
        data = prepare(dataset, config, watch, scaling)
    for warning in data.warnings:
        reporter.say(f"note: {warning}")
    reporter.say(_summary(dataset, data, config))

    classifier, classifier_history = _train_classifier(
        job, config, data, reporter, stop, origin
    )
    adjusted = _adjust(job, config, data, classifier, reporter, stop)
    forecast, forecast_history = _train_forecast(job, config, data, reporter, stop)
    rnn_rbm, rnn_rbm_history = _train_rnn_rbm(job, config, data, reporter, stop, origin)

    histories = {
        "classifier": classifier_history,
        "forecast": forecast_history,
        "rnn_rbm": rnn_rbm_history,
    }
    training = _training_record(job, config, dataset, data, histories)
    if origin is not None:
        training["from"] = origin.record
    card = complete_card(config.card, job.dataset, job.out)
    train_songs, valid_songs = _songs(config, data)
    trained = Trained(
        config,
        data.front_end,
        data.offset,
        data.gain,
        data.units,
        data.valid,
        classifier,
        adjusted,
        rnn_rbm,
        forecast,
        train_songs,
        valid_songs,
    )
    about = card.model_dump(include={"name", "species", "licence", "attribution"})
    folder = job.work / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    bundle = write_bundle(folder, trained, about, training)
    with reporter.stage("test") as watch:
        figures = evaluate_bundle(
            bundle, data.split.test, lambda share: watch(share, "")
        )
    if rnn_rbm is not None:
        _compare_with_linear(figures, bundle, data)
    finished = bundle.manifest.model_copy(update={"figures": figures})
    page = card_page(finished, card.description)
    (folder / "README.md").write_text(page, encoding="utf-8")
    seal(folder, finished)
    load_bundle(folder)
    _put_in_place(job)
    reporter.say(f"{job.out}: done in {(time.monotonic() - started) / 60:.1f} min")
    return load_bundle(job.out)


def _adjust(
    job: Job,
    config: TrainConfig,
    data: Prepared,
    classifier: Classifier | None,
    reporter: Reporter,
    stop: StopFlag,
) -> Adjusted | None:
    if classifier is None:
        return None

    def leave() -> None:
        if stop.raised:
            raise Interrupted(
                "stopped while the detector was fitted: run the same command again "
                "to fit it to the network, which is trained"
            )

    limit_s = math.inf if job.minutes is None else job.minutes * 60 * _DETECTOR_SHARE
    with reporter.stage("detector") as watch:
        return adjust(classifier, config, data, watch, leave, limit_s)


def _train_classifier(
    job: Job,
    config: TrainConfig,
    data: Prepared,
    reporter: Reporter,
    stop: StopFlag,
    origin: Origin | None,
) -> tuple[Classifier | None, History | None]:
    if config.classifier is None:
        return None, None
    logarithmic = data.front_end.options.get("scale") == "log"
    augmenter = Augmenter(
        config.classifier.augment, data.offset, data.gain, logarithmic
    )
    task = ClassifierTask(
        config.classifier,
        data.train,
        data.valid,
        len(data.units.names),
        augmenter,
        config.seed,
    )
    if origin is not None:
        origin.fill_classifier(task.module, data.units.names)
    share = _CLASSIFIER_SHARE if config.rnn_rbm else _CLASSIFIER_SHARE + _RNN_RBM_SHARE
    history = _fit(task, job, config, share, reporter, stop)
    return task.module, history


def _train_forecast(
    job: Job, config: TrainConfig, data: Prepared, reporter: Reporter, stop: StopFlag
) -> tuple[TrainedForecast | None, History | None]:
    """The RNN-RBM over units: seconds of work."""
    if config.forecast is None or config.classifier is None:
        return None, None
    frame_ms = 1000 * data.front_end.hop_length / data.front_end.sample_rate
    train, valid = (
        phrases_of(materials, frame_ms, config.forecast.pause_ms)
        for materials in (data.train, data.valid)
    )
    if not any(len(phrase.units) > 1 for phrase in train):
        reporter.say(
            "note: no forecast, because no two training segments follow each other "
            f"within {config.forecast.pause_ms:g} ms (forecast.pause_ms)"
        )
        return None, None
    n_units = len(data.units.names) - 1
    task = ForecastTask(config.forecast, train, valid, n_units, config.seed)
    history = _fit(task, job, config, _FORECAST_SHARE, reporter, stop)
    return TrainedForecast(task.module, task.edges, train), history


def _train_rnn_rbm(
    job: Job,
    config: TrainConfig,
    data: Prepared,
    reporter: Reporter,
    stop: StopFlag,
    origin: Origin | None,
) -> tuple[RnnRbm | None, History | None]:
    if config.rnn_rbm is None:
        return None, None
    train, valid = _songs(config, data)
    task = RnnRbmTask(config.rnn_rbm, train, valid, config.seed)
    if origin is not None:
        origin.fill_rnn_rbm(task.module)
    share = _RNN_RBM_SHARE if config.classifier else _CLASSIFIER_SHARE + _RNN_RBM_SHARE
    history = _fit(task, job, config, share, reporter, stop)
    return task.module, history


def _fit(
    task: Task,
    job: Job,
    config: TrainConfig,
    share: float,
    reporter: Reporter,
    stop: StopFlag,
) -> History:
    limit_s = None if job.minutes is None else job.minutes * 60 * share
    path = job.work / f"{task.name.lower().replace('-', '_')}.pt"
    with reporter.stage(task.name) as watch:

        def report(progress: float, history: History, loss: float) -> None:
            note = f"loss {loss:.3f}"
            if history.rows:
                measures = history.rows[-1]
                note += "".join(
                    f", {name.replace('_', ' ')} {measures[name]:.4g}"
                    for name in measures
                    if name not in ("update", "loss", "score")
                )
            watch(min(1.0, progress), note)

        return fit(task, path, Budget(limit_s), stop, config.checkpoint_s, report)


def _songs(config: TrainConfig, data: Prepared) -> tuple[list[Float32], list[Float32]]:
    if config.rnn_rbm is None:
        return [], []
    keep_s = config.rnn_rbm.trim_silence_s
    frames_per_s = data.front_end.sample_rate / data.front_end.hop_length
    return (
        songs_of(data.train, keep_s, frames_per_s),
        songs_of(data.valid, keep_s, frames_per_s),
    )


def _compare_with_linear(
    figures: dict[str, Any], bundle: Bundle, data: Prepared
) -> None:
    """Put the yardstick of a linear prediction beside the RNN-RBM's."""
    train = [material.clipped for material in data.train]
    features = build_front_end(bundle.manifest.front_end, bundle.folder)
    rate = bundle.manifest.front_end.sample_rate
    test = [frames_of(features, read_samples(r, rate)) for r in data.split.test]
    longer = [song for song in test if len(song) > SKIPPED_FRAMES]
    measures = figures["rnn_rbm"]
    for order in AR_ORDERS:
        songs = [song for song in train if len(song) > order]
        error = LinearPredictor.fit(songs, order).squared_error(longer, SKIPPED_FRAMES)
        measures[f"mse_ar{order}"] = round(error, 6)
        if error > 0:
            measures[f"mse_ratio_to_ar{order}"] = round(measures["mse"] / error, 4)


def _summary(dataset: Dataset, data: Prepared, config: TrainConfig) -> str:
    split = data.split
    parts = ", ".join(
        f"{name} {len(part)} ({seconds(part):.0f} s)"
        for name, part in (
            ("train", split.train),
            ("valid", split.valid),
            ("test", split.test),
        )
    )
    names = [name for name in data.units.names if name]
    return (
        f"recordings: {parts}; split {split.rule}; {len(names)} units: "
        f"{' '.join(names)}; {config.threads} thread(s), seed {config.seed}"
    )


def _training_record(
    job: Job,
    config: TrainConfig,
    dataset: Dataset,
    data: Prepared,
    histories: dict[str, History | None],
) -> dict[str, Any]:
    def names(part: Sequence[Recording]) -> list[str]:
        return [
            r.file
            if r.start_s == 0 and r.stop_s > r.duration_s
            else f"{r.file} from {r.start_s:.3f} to {min(r.stop_s, r.duration_s):.3f} s"
            for r in part
        ]

    split = data.split
    chosen = {
        name: {
            "updates": history.update,
            "chosen_at": int(history.best_row["update"]),
            "minutes": round(history.spent_s / 60, 2),
            "valid": {
                key: round(value, 5)
                for key, value in history.best_row.items()
                if key not in ("update", "loss")
            },
        }
        for name, history in histories.items()
        if history is not None and history.best_row
    }
    return {
        "command": job.command,
        "dataset": dataset.folder.resolve().name,
        "split": split.rule,
        "seconds": {
            "train": round(seconds(split.train), 1),
            "valid": round(seconds(split.valid), 1),
            "test": round(seconds(split.test), 1),
        },
        "recordings": {
            "train": names(split.train),
            "valid": names(split.valid),
            "test": names(split.test),
        },
        "networks": chosen,
        "notes": data.warnings,
        "recipe": config.model_dump(mode="json", exclude={"card"}),
        "versions": {
            "neurovocal": version("neurovocal"),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _check_out(job: Job) -> None:
    out = job.out
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out '{out}' is a file: name a folder that is to be made")
    if out.is_dir() and any(out.iterdir()):
        if not (out / MANIFEST_NAME).is_file():
            raise ConfigError(f"--out '{out}' holds other files: name a new folder")
        if not job.overwrite:
            raise ConfigError(
                f"--out '{out}' already is a bundle: name another folder, or say "
                "--overwrite (it is replaced when the new one is finished)"
            )
    try:
        job.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"'{job.work}' cannot be made ({error.strerror})") from error


def _claim_work(
    job: Job, config: TrainConfig, dataset: Dataset, origin: Origin | None
) -> None:
    """Begin a work folder, or make sure that the one there is ours."""
    listing = [
        [r.file, r.path.stat().st_size, r.sample_rate, len(r.annotations)]
        + [[a.onset_s, a.offset_s, a.unit] for a in r.annotations]
        for r in dataset.recordings
    ]
    recipe = config.model_dump(mode="json", exclude={"card", "checkpoint_s"})
    start = [origin.digest] if origin else []
    content = json.dumps([recipe, listing, *start], sort_keys=True)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    path = job.work / "fingerprint"
    if job.restart:
        for old in job.work.glob("*.pt"):
            old.unlink()
    elif path.is_file() and path.read_text(encoding="utf-8") != fingerprint:
        raise ConfigError(
            f"'{job.work}' holds an unfinished training with another recipe or other "
            "data: say --restart to begin anew, or name another --out"
        )
    path.write_text(fingerprint, encoding="utf-8")


def _put_in_place(job: Job) -> None:
    """Swap the finished bundle in; an older one is gone only afterwards."""
    old = job.out.with_name(f"{job.out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if job.out.exists():
        os.replace(job.out, old)
    os.replace(job.work / "bundle", job.out)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(job.work)
