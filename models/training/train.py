"""Training of all networks, from a dataset to a verified bundle."""

import math
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import (
    AudioFileError,
    BundleError,
    ConfigError,
    NeurovocalError,
)
from neurovocal.engine.support.text import plain
from neurovocal.models.classifier.adjust import CalibratedClassifier, adjust_classifier
from neurovocal.models.classifier.forecast.graph import TrainedForecast
from neurovocal.models.classifier.forecast.network import split_phrases
from neurovocal.models.classifier.forecast.training import ForecastTask
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.annotations import truncate_problems
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset, survey_dataset
from neurovocal.models.data.prepare import PreparedDataset, compute_frames
from neurovocal.models.data.soundness import read_recordings
from neurovocal.models.data.split.recordings import check_words, select_recordings
from neurovocal.models.evaluation.evaluate import evaluate_bundle
from neurovocal.models.evaluation.linear_baseline import linear_errors
from neurovocal.models.report.collector import ReportCollector
from neurovocal.models.report.page import REPORT_FOLDER, Measurement, write_report
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.training import RnnRbmTask, trim_songs
from neurovocal.models.toolkit.files import (
    DiskError,
    reason_of,
    write_file,
    writing,
)
from neurovocal.models.toolkit.loop import (
    Budget,
    History,
    StopFlag,
    Task,
    TrainingInterrupted,
    fit,
)
from neurovocal.models.toolkit.problems import Problems
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import Rows
from neurovocal.models.training.card import card_page, complete_card
from neurovocal.models.training.checks import check_training
from neurovocal.models.training.export.bundle import (
    TrainingResult,
    write_bundle,
    write_manifest,
)
from neurovocal.models.training.record import summary, training_record, write_history
from neurovocal.models.training.transfer import Origin, load_origin
from neurovocal.models.training.workspace import (
    TrainingJob,
    claim_work_folder,
    install_bundle,
    out_problems,
    with_real_out,
    work_folder,
)

# Shares of a time budget; the rest is for frames, export and evaluation.
_DETECTOR_SHARE = 0.05
_CLASSIFIER_SHARE = 0.35
_RNN_RBM_SHARE = 0.5
_FORECAST_SHARE = 0.05


def train_bundle(
    job: TrainingJob, config: TrainConfig, reporter: Reporter, stop: StopFlag
) -> Bundle:
    """Train, export, verify and evaluate a bundle, and move it to ``--out``.

    The report is written last, into the finished bundle: an error of the report does
    not lose the training.

    Parameters
    ----------
    job : TrainingJob
        Arguments of the training.
    config : TrainConfig
        Recipe.
    reporter : Reporter
        Receives messages and progress.
    stop : StopFlag
        Request to stop; checkpoints are kept.

    Raises
    ------
    ConfigError
        The arguments, the recipe or the data are invalid.
    TrainingInterrupted
        `stop` was raised; the same call resumes the training.
    BundleError
        torch and ONNX Runtime disagree on an exported network.
    """
    started_s = time.monotonic()
    job = with_real_out(job)
    problems = Problems()
    problems.add(out_problems(job))
    origin = problems.of(lambda: load_origin(job.origin))
    dataset = _read(job, config, problems)
    with _told_about_checkpoints(job), work_folder(job):
        collector, test = _make_bundle(job, config, dataset, origin, reporter, stop)
    bundle = load_bundle(job.out)
    without_report = (
        f"'{job.out}' is finished, but not its report: `neurovocal evaluate BUNDLE "
        "DATASET --report DIR` writes it"
    )
    with reporter.stage("report") as on_progress:

        def report_share(share: float) -> None:
            if stop.raised:
                raise TrainingInterrupted(without_report)
            on_progress(share, "")

        try:
            page = write_report(
                job.out / REPORT_FOLDER,
                bundle,
                bundle.manifest.figures,
                Measurement("the test split", job.command),
                collector,
                test,
                report_share,
            )
        except (DiskError, ConfigError) as error:
            raise DiskError(f"{error}; {without_report}") from error
    minutes = (time.monotonic() - started_s) / 60
    reporter.print_message(f"{page}: what was learned, and how well")
    reporter.print_message(f"{job.out}: done in {minutes:.1f} min")
    command = shlex.join(["neurovocal", "label", "--bundle", str(job.out)])
    reporter.print_message(f"now try: {command} FILES")
    return bundle


def _read(job: TrainingJob, config: TrainConfig, problems: Problems) -> Dataset:
    """Read the dataset and select its recordings.

    Raises
    ------
    ConfigError
        There are mistakes in the dataset, or in `problems`. What could be read of the
        dataset is checked further, so that all mistakes are told at once.
    """
    surveyed = problems.of(
        lambda: survey_dataset(job.dataset, job.annotation_format, job.choice)
    )
    if surveyed is not None:
        found, mistakes = surveyed
        problems.add(truncate_problems(mistakes))
        dataset = problems.of(lambda: select_recordings(found, config.split))
        if dataset is not None and not problems:
            return dataset
        problems.of(lambda: read_recordings(found.recordings))
        problems.of(lambda: check_words(found, config.split))
    problems.refuse()
    raise AssertionError("a dataset without mistakes was returned before")


@contextmanager
def _told_about_checkpoints(job: TrainingJob) -> Iterator[None]:
    """Add to errors that what was trained is kept, and how to go on from it."""
    try:
        yield
    except (TrainingInterrupted, BundleError):
        raise
    except (DiskError, ConfigError, AudioFileError, OSError) as error:
        problem: NeurovocalError
        if isinstance(error, OSError):
            name = error.filename or job.work_path
            problem = DiskError(f"'{name}': {reason_of(error)}")
        else:
            problem = error
        if any(job.work_path.glob("*.pt")):
            hint = (
                f"what was trained is kept in '{job.work_path}': when this is mended, "
                "the same command goes on from it"
            )
            if isinstance(problem, ConfigError):
                problem = ConfigError([*problem.problems, hint])
            else:
                problem = DiskError(f"{problem}; {hint}")
        if problem is error:
            raise
        raise problem from error


def _make_bundle(
    job: TrainingJob,
    config: TrainConfig,
    dataset: Dataset,
    origin: Origin | None,
    reporter: Reporter,
    stop: StopFlag,
) -> tuple[ReportCollector, list[AnnotatedRecording]]:
    """Train and install the bundle; returns the counts and recordings of the test."""
    torch.set_num_threads(config.threads)
    scaling, more = None, []
    if origin is not None:
        scaling, more = origin.scaling(config), origin.notes(config, dataset.recordings)
        config = origin.recipe(config)
    n_bins = origin.n_bins if origin is not None else None
    with _stage(reporter, stop, "reading") as watch:
        plan, sounds = check_training(dataset, config, n_bins, watch)
    plan.warnings.extend(more)
    claim_work_folder(job, config, plan, sounds, origin.digest if origin else None)
    for warning in [*dataset.notes, *plan.warnings]:
        reporter.print_message(f"note: {warning}")
    reporter.print_message(summary(plan, config))
    with writing(job.frames_path):
        job.frames_path.mkdir(exist_ok=True)
    with _stage(reporter, stop, "frames") as watch:
        data = compute_frames(
            plan, config, lambda share, note: watch(share), scaling, job.frames_path
        )

    trained, histories = _Training(job, config, data, origin, reporter, stop).run()
    training = training_record(job.command, config, dataset, data, histories)
    if origin is not None:
        training["from"] = origin.record
    collector = _export(job, trained, training, histories, reporter, stop, data)
    install_bundle(job)
    return collector, data.split.test


@contextmanager
def _stage(
    reporter: Reporter, stop: StopFlag, name: str
) -> Iterator[Callable[[float], None]]:
    """Show the progress of a stage that has no checkpoint, and stop in it."""
    with reporter.stage(name) as on_progress:

        def watch(share: float) -> None:
            if stop.raised:
                raise TrainingInterrupted(
                    f"stopped in the stage '{name}': what was trained before is kept; "
                    "run the same command again to go on"
                )
            on_progress(share, "")

        yield watch


def _export(
    job: TrainingJob,
    trained: TrainingResult,
    training: dict[str, Any],
    histories: Mapping[str, History | None],
    reporter: Reporter,
    stop: StopFlag,
    data: PreparedDataset,
) -> ReportCollector:
    """Write the bundle to the work folder and measure it on the test split."""
    card = complete_card(trained.config.card, job.dataset, job.out)
    about = card.model_dump(include={"name", "species", "licence", "attribution"})
    folder = job.work_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    bundle = write_bundle(folder, trained, about, training)
    collector = ReportCollector(bundle)
    with _stage(reporter, stop, "test") as watch:
        figures = evaluate_bundle(bundle, data.split.test, watch, collector.add)
    if trained.rnn_rbm is not None:
        figures["rnn_rbm"] |= linear_errors(bundle, data, figures["rnn_rbm"]["mse"])
    finished = bundle.manifest.model_copy(update={"figures": figures})
    page = card_page(finished, card.description)
    write_file(folder / "README.md", plain(page).encode())
    write_history(folder, histories)
    write_manifest(folder, finished)
    load_bundle(folder)
    return collector


@dataclass(frozen=True, slots=True, eq=False)
class _Training:
    """Stages of a training on a prepared dataset."""

    job: TrainingJob
    config: TrainConfig
    data: PreparedDataset
    origin: Origin | None
    reporter: Reporter
    stop: StopFlag

    def run(self) -> tuple[TrainingResult, dict[str, History | None]]:
        """Train all networks of the recipe, one after the other."""
        data = self.data
        classifier, classifier_history = self._train_classifier()
        calibrated = self._calibrate(classifier)
        forecast, forecast_history = self._train_forecast()
        rnn_rbm, rnn_rbm_history = self._train_rnn_rbm()
        train_songs, valid_songs = self._songs()
        trained = TrainingResult(
            self.config,
            data.front_end,
            data.offset,
            data.gain,
            data.units,
            data.valid,
            classifier,
            calibrated,
            rnn_rbm,
            forecast,
            train_songs,
            valid_songs,
        )
        return trained, {
            "classifier": classifier_history,
            "forecast": forecast_history,
            "rnn_rbm": rnn_rbm_history,
        }

    def _train_classifier(self) -> tuple[Classifier | None, History | None]:
        """Train the classifier; None without one in the recipe."""
        config, data = self.config, self.data
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
        if self.origin is not None:
            self.origin.initialize_classifier(task.module, data.units.names)
        alone = config.rnn_rbm is None
        share = _CLASSIFIER_SHARE + _RNN_RBM_SHARE if alone else _CLASSIFIER_SHARE
        history = self._fit(task, share)
        return task.module, history

    def _calibrate(self, classifier: Classifier | None) -> CalibratedClassifier | None:
        """Calibrate the classifier and fit the detector to it."""
        if classifier is None:
            return None

        def check_stop() -> None:
            if self.stop.raised:
                raise TrainingInterrupted(
                    "stopped while the detector was fitted: run the same command "
                    "again to fit it to the network, which is trained"
                )

        minutes = self.job.minutes
        limit_s = math.inf if minutes is None else minutes * 60 * _DETECTOR_SHARE
        with self.reporter.stage("detector") as on_progress:
            return adjust_classifier(
                classifier, self.config, self.data, on_progress, check_stop, limit_s
            )

    def _train_forecast(self) -> tuple[TrainedForecast | None, History | None]:
        """Train the forecast; None without one in the recipe, or without phrases."""
        config, data = self.config, self.data
        if config.forecast is None or config.classifier is None:
            return None, None
        frame_ms = 1000 * data.front_end.hop_length / data.front_end.sample_rate
        train, valid = (
            split_phrases(examples, frame_ms, config.forecast.pause_ms)
            for examples in (data.train, data.valid)
        )
        if not any(len(phrase.units) > 1 for phrase in train):
            self.reporter.print_message(
                "note: no forecast, because no two training segments follow each other "
                f"within {config.forecast.pause_ms:g} ms (forecast.pause_ms)"
            )
            return None, None
        n_units = len(data.units.names) - 1
        task = ForecastTask(config.forecast, train, valid, n_units, config.seed)
        history = self._fit(task, _FORECAST_SHARE)
        return TrainedForecast(task.module, task.edges, train), history

    def _train_rnn_rbm(self) -> tuple[RnnRbm | None, History | None]:
        """Train the RNN-RBM; None without one in the recipe."""
        config = self.config
        if config.rnn_rbm is None:
            return None, None
        train, valid = self._songs()
        task = RnnRbmTask(config.rnn_rbm, train, valid, config.seed)
        if self.origin is not None:
            self.origin.initialize_rnn_rbm(task.module)
        alone = config.classifier is None
        share = _CLASSIFIER_SHARE + _RNN_RBM_SHARE if alone else _RNN_RBM_SHARE
        history = self._fit(task, share)
        return task.module, history

    def _fit(self, task: Task, share: float) -> History:
        """Train a task within its share of the time budget, with its checkpoint."""
        minutes = self.job.minutes
        budget = Budget(None if minutes is None else minutes * 60 * share)
        path = self.job.work_path / f"{task.name.lower().replace('-', '_')}.pt"
        checkpoint_s = self.config.checkpoint_s
        with self.reporter.stage(task.name) as on_progress:

            def report(progress: float, history: History, loss: float) -> None:
                note = f"loss {loss:.3f}"
                if history.rows:
                    measures = history.rows[-1]
                    note += "".join(
                        f", {name.replace('_', ' ')} {measures[name]:.4g}"
                        for name in measures
                        if name not in ("update", "loss", "score")
                    )
                on_progress(min(1.0, progress), note)

            return fit(task, path, budget, self.stop, checkpoint_s, report)

    def _songs(self) -> tuple[list[Rows], list[Rows]]:
        """Return the trimmed songs of the training and validation splits."""
        config, front_end = self.config.rnn_rbm, self.data.front_end
        if config is None:
            return [], []
        keep_s = config.trim_silence_s
        frames_per_s = front_end.sample_rate / front_end.hop_length
        return (
            [*trim_songs(self.data.train, keep_s, frames_per_s)],
            [*trim_songs(self.data.valid, keep_s, frames_per_s)],
        )
