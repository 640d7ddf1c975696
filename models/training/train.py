"""Training from a dataset folder to a verified bundle."""

import math
import shutil
import time

import torch

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.models.classifier.adjust import CalibratedClassifier, adjust_classifier
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.datasets import AnnotatedRecording, read_dataset
from neurovocal.models.data.prepare import PreparedDataset, prepare_dataset
from neurovocal.models.data.split import select_recordings
from neurovocal.models.evaluation.evaluate import evaluate_bundle
from neurovocal.models.evaluation.linear_baseline import linear_errors
from neurovocal.models.export.bundle import TrainingResult, write_bundle, write_manifest
from neurovocal.models.forecast.graph import TrainedForecast
from neurovocal.models.forecast.network import split_phrases
from neurovocal.models.forecast.training import ForecastTask
from neurovocal.models.report.page import REPORT_FOLDER, Measured, write_report
from neurovocal.models.report.tally import Tally
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.training import RnnRbmTask, trim_songs
from neurovocal.models.toolkit.loop import (
    Budget,
    History,
    StopFlag,
    Task,
    TrainingInterrupted,
    fit,
)
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import Rows
from neurovocal.models.training.card import card_page, complete_card
from neurovocal.models.training.record import summary, training_record, write_history
from neurovocal.models.training.transfer import Origin, load_origin
from neurovocal.models.training.workspace import (
    TrainingJob,
    claim_work_folder,
    install_bundle,
    work_folder,
)

# Of a time budget: the rest is for frames, export and evaluation.
_DETECTOR_SHARE = 0.05
_CLASSIFIER_SHARE = 0.35
_RNN_RBM_SHARE = 0.5
_FORECAST_SHARE = 0.05


def train_bundle(
    job: TrainingJob, config: TrainConfig, reporter: Reporter, stop: StopFlag
) -> Bundle:
    """Train, export, verify, evaluate, and only then put the bundle in place.

    The report is written last, into the finished bundle: whatever happens to it,
    what was trained is safe.

    Raises
    ------
    ConfigError
        The arguments, the recipe or the data are wrong.
    TrainingInterrupted
        `stop` was raised; the same call goes on where this one ended.
    BundleError
        What was trained cannot be exported faithfully.
    """
    started = time.monotonic()
    with work_folder(job):
        tally, test = _make_bundle(job, config, reporter, stop)
    bundle = load_bundle(job.out)
    with reporter.stage("report") as watch:

        def step(share: float) -> None:
            if stop.raised:
                raise TrainingInterrupted(
                    f"'{job.out}' is finished, but not its report: `neurovocal "
                    "evaluate BUNDLE DATASET --report DIR` writes it"
                )
            watch(share, "")

        page = write_report(
            job.out / REPORT_FOLDER,
            bundle,
            bundle.manifest.figures,
            Measured("the test split", job.command),
            tally,
            test,
            step,
        )
    reporter.print_message(f"{page}: what was learned, and how well")
    reporter.print_message(
        f"{job.out}: done in {(time.monotonic() - started) / 60:.1f} min"
    )
    return bundle


def _make_bundle(
    job: TrainingJob, config: TrainConfig, reporter: Reporter, stop: StopFlag
) -> tuple[Tally, list[AnnotatedRecording]]:
    """Train and put the bundle in place; what was heard of the test split."""
    torch.set_num_threads(config.threads)
    everything = read_dataset(job.dataset, job.annotation_format)
    dataset = select_recordings(everything, config.split)
    origin, scaling = load_origin(job.origin), None
    if origin is not None:
        scaling, config = origin.scaling(config), origin.recipe(config)
    claim_work_folder(job, config, dataset, origin.digest if origin else None)
    job.frames_path.mkdir(exist_ok=True)
    with reporter.stage("frames") as watch:
        data = prepare_dataset(dataset, config, watch, scaling, job.frames_path)
    for warning in data.warnings:
        reporter.print_message(f"note: {warning}")
    reporter.print_message(summary(dataset, data, config))

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
    training = training_record(job.command, config, dataset, data, histories)
    if origin is not None:
        training["from"] = origin.record
    card = complete_card(config.card, job.dataset, job.out)
    train_songs, valid_songs = _songs(config, data)
    trained = TrainingResult(
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
    folder = job.work_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    bundle = write_bundle(folder, trained, about, training)
    tally = Tally(bundle)
    with reporter.stage("test") as watch:
        figures = evaluate_bundle(
            bundle, data.split.test, lambda share: watch(share, ""), tally.add
        )
    if rnn_rbm is not None:
        figures["rnn_rbm"] |= linear_errors(bundle, data, figures["rnn_rbm"]["mse"])
    finished = bundle.manifest.model_copy(update={"figures": figures})
    page = card_page(finished, card.description)
    (folder / "README.md").write_text(page, encoding="utf-8")
    write_history(folder, histories)
    write_manifest(folder, finished)
    load_bundle(folder)
    install_bundle(job)
    return tally, data.split.test


def _adjust(
    job: TrainingJob,
    config: TrainConfig,
    data: PreparedDataset,
    classifier: Classifier | None,
    reporter: Reporter,
    stop: StopFlag,
) -> CalibratedClassifier | None:
    if classifier is None:
        return None

    def leave() -> None:
        if stop.raised:
            raise TrainingInterrupted(
                "stopped while the detector was fitted: run the same command again "
                "to fit it to the network, which is trained"
            )

    limit_s = math.inf if job.minutes is None else job.minutes * 60 * _DETECTOR_SHARE
    with reporter.stage("detector") as watch:
        return adjust_classifier(classifier, config, data, watch, leave, limit_s)


def _train_classifier(
    job: TrainingJob,
    config: TrainConfig,
    data: PreparedDataset,
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
        origin.initialize_classifier(task.module, data.units.names)
    share = _CLASSIFIER_SHARE if config.rnn_rbm else _CLASSIFIER_SHARE + _RNN_RBM_SHARE
    history = _fit(task, job, config, share, reporter, stop)
    return task.module, history


def _train_forecast(
    job: TrainingJob,
    config: TrainConfig,
    data: PreparedDataset,
    reporter: Reporter,
    stop: StopFlag,
) -> tuple[TrainedForecast | None, History | None]:
    """The RNN-RBM over units: seconds of work."""
    if config.forecast is None or config.classifier is None:
        return None, None
    frame_ms = 1000 * data.front_end.hop_length / data.front_end.sample_rate
    train, valid = (
        split_phrases(examples, frame_ms, config.forecast.pause_ms)
        for examples in (data.train, data.valid)
    )
    if not any(len(phrase.units) > 1 for phrase in train):
        reporter.print_message(
            "note: no forecast, because no two training segments follow each other "
            f"within {config.forecast.pause_ms:g} ms (forecast.pause_ms)"
        )
        return None, None
    n_units = len(data.units.names) - 1
    task = ForecastTask(config.forecast, train, valid, n_units, config.seed)
    history = _fit(task, job, config, _FORECAST_SHARE, reporter, stop)
    return TrainedForecast(task.module, task.edges, train), history


def _train_rnn_rbm(
    job: TrainingJob,
    config: TrainConfig,
    data: PreparedDataset,
    reporter: Reporter,
    stop: StopFlag,
    origin: Origin | None,
) -> tuple[RnnRbm | None, History | None]:
    if config.rnn_rbm is None:
        return None, None
    train, valid = _songs(config, data)
    task = RnnRbmTask(config.rnn_rbm, train, valid, config.seed)
    if origin is not None:
        origin.initialize_rnn_rbm(task.module)
    share = _RNN_RBM_SHARE if config.classifier else _CLASSIFIER_SHARE + _RNN_RBM_SHARE
    history = _fit(task, job, config, share, reporter, stop)
    return task.module, history


def _fit(
    task: Task,
    job: TrainingJob,
    config: TrainConfig,
    share: float,
    reporter: Reporter,
    stop: StopFlag,
) -> History:
    limit_s = None if job.minutes is None else job.minutes * 60 * share
    path = job.work_path / f"{task.name.lower().replace('-', '_')}.pt"
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


def _songs(config: TrainConfig, data: PreparedDataset) -> tuple[list[Rows], list[Rows]]:
    if config.rnn_rbm is None:
        return [], []
    keep_s = config.rnn_rbm.trim_silence_s
    frames_per_s = data.front_end.sample_rate / data.front_end.hop_length
    return (
        [*trim_songs(data.train, keep_s, frames_per_s)],
        [*trim_songs(data.valid, keep_s, frames_per_s)],
    )
