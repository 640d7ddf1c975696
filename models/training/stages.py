"""Stages of a training on a prepared dataset, one network after the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neurovocal.models.classifier.adjust import CalibratedClassifier, adjust_classifier
from neurovocal.models.classifier.cross_validation import CrossValidated, train_folds
from neurovocal.models.classifier.forecast.graph import TrainedForecast
from neurovocal.models.classifier.forecast.network import split_phrases
from neurovocal.models.classifier.forecast.training import ForecastTask
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.classifier.training import ClassifierTask
from neurovocal.models.data.augment import Augmenter
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.data.prepare import PreparedDataset
from neurovocal.models.data.split.folds import Folds
from neurovocal.models.data.split.recordings import total_duration_s
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
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.toolkit.rows import Rows
from neurovocal.models.training.export.bundle import (
    TrainingResult,
)
from neurovocal.models.training.finish import watched_stage
from neurovocal.models.training.transfer import Origin
from neurovocal.models.training.unlabelled import label_confidently
from neurovocal.models.training.workspace import (
    TrainingJob,
)

# Shares of a time budget; the rest is for frames, export and evaluation.
_DETECTOR_SHARE = 0.05
_CLASSIFIER_SHARE = 0.35
_RNN_RBM_SHARE = 0.5
_FORECAST_SHARE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class TrainingStages:
    """Stages of a training on a prepared dataset."""

    job: TrainingJob
    config: TrainConfig
    data: PreparedDataset
    origin: Origin | None
    reporter: Reporter
    stop: StopFlag
    folds: Folds
    unlabelled: list[AnnotatedRecording]

    def run(
        self,
    ) -> tuple[TrainingResult, dict[str, History | None]]:
        """Train all networks of the recipe, one after the other."""
        data = self.data
        validated, calibrated = self._cross_validate()
        classifier, classifier_history = self._train_classifier(validated)
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
            validated,
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

    def _cross_validate(
        self,
    ) -> tuple[CrossValidated | None, CalibratedClassifier | None]:
        """Train classifiers without a part of the recordings, and calibrate by them.

        None without a classifier in the recipe.
        """
        config, data = self.config, self.data
        if config.classifier is None:
            return None, None
        folds = self.folds

        def train(
            number: int, kept: list[LabelledFrames], left_out: list[LabelledFrames]
        ) -> tuple[Classifier, History]:
            name = f"classifier, fold {number + 1} of {len(folds.parts)}"
            return self._one_classifier(name, f"fold{number + 1}", kept, left_out)

        validated = train_folds(folds, [*data.train, *data.valid], train)

        def check_stop() -> None:
            if self.stop.raised:
                raise TrainingInterrupted(
                    "stopped while the detector was fitted: run the same command "
                    "again to fit it to the networks, which are trained"
                )

        minutes = self.job.minutes
        limit_s = math.inf if minutes is None else minutes * 60 * _DETECTOR_SHARE
        with self.reporter.stage("detector") as on_progress:
            calibrated = adjust_classifier(
                validated, config, data, on_progress, check_stop, limit_s
            )
        return validated, calibrated

    def _train_classifier(
        self, validated: CrossValidated | None
    ) -> tuple[Classifier | None, History | None]:
        """Train the classifier on all recordings; None without a cross-validation."""
        if validated is None:
            return None, None
        everything = [*self.data.train, *self.data.valid]
        updates = validated.best_updates
        more: list[LabelledFrames] = []
        if self.unlabelled:
            with watched_stage(self.reporter, self.stop, "unlabelled") as watch:
                more = label_confidently(validated, self.unlabelled, self.data, watch)
            sure = sum(int((m.target != IGNORED).sum()) for m in more)
            front_end, of_s = self.data.front_end, total_duration_s(self.unlabelled)
            sure_s = sure * front_end.hop_length / front_end.sample_rate
            self.reporter.print_message(
                f"unlabelled: {sure_s:.0f} s of {of_s:.0f} s count"
            )
        network, history = self._one_classifier(
            "classifier", "classifier", everything, [], updates, more
        )
        return network, validated.history(history)

    def _one_classifier(
        self,
        name: str,
        file: str,
        train: list[LabelledFrames],
        left_out: list[LabelledFrames],
        updates: int | None = None,
        unlabelled: Sequence[LabelledFrames] = (),
    ) -> tuple[Classifier, History]:
        """Train one network on recordings, and measure it on others along the way."""
        config, data = self.config, self.data
        assert config.classifier is not None
        logarithmic = data.front_end.options.get("scale") == "log"
        augmenter = Augmenter(
            config.classifier.augment, data.offset, data.gain, logarithmic
        )
        task = ClassifierTask(
            config.classifier,
            train,
            left_out,
            len(data.units.names),
            augmenter,
            config.seed,
            unlabelled,
        )
        task.name = name
        if updates is not None and config.classifier.patience is not None:
            task.updates = updates
        if self.origin is not None:
            self.origin.initialize_classifier(task.module, data.units.names)
        alone = config.rnn_rbm is None
        share = _CLASSIFIER_SHARE + _RNN_RBM_SHARE if alone else _CLASSIFIER_SHARE
        # The network that ships gets more time than all folds together.
        share *= 0.4 / len(self.folds.parts) if left_out else 0.6
        history = self._fit(task, share, file)
        return task.module, history

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

    def _fit(self, task: Task, share: float, file: str = "") -> History:
        """Train a task within its share of the time budget, with its checkpoint."""
        minutes = self.job.minutes
        budget = Budget(None if minutes is None else minutes * 60 * share)
        stem = file or task.name.lower().replace("-", "_")
        path = self.job.work_path / f"{stem}.pt"
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
