"""Last stage of a training: the bundle is written and measured."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.support.text import plain
from neurovocal.models.classifier.cross_validation import CrossValidated
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.prepare import PreparedDataset
from neurovocal.models.data.split.recordings import (
    Split,
)
from neurovocal.models.evaluation.evaluate import evaluate_bundle
from neurovocal.models.evaluation.linear_baseline import linear_errors
from neurovocal.models.report.collector import ReportCollector
from neurovocal.models.toolkit.files import (
    write_file,
)
from neurovocal.models.toolkit.loop import (
    History,
    StopFlag,
    TrainingInterrupted,
)
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.training.card import card_page, complete_card
from neurovocal.models.training.export.bundle import (
    TrainingResult,
    write_bundle,
    write_manifest,
)
from neurovocal.models.training.record import write_history
from neurovocal.models.training.workspace import (
    TrainingJob,
)


@contextmanager
def watched_stage(
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


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Networks of a training, and its record."""

    trained: TrainingResult
    training: dict[str, Any]
    histories: Mapping[str, History | None]


def export_bundle(
    job: TrainingJob,
    made: Made,
    reporter: Reporter,
    stop: StopFlag,
    data: PreparedDataset,
) -> tuple[ReportCollector, list[AnnotatedRecording]]:
    """Write the bundle to the work folder and measure it.

    On the test split; without one, on all recordings, each labelled by the network of
    the cross-validation that was not trained on it. The RNN-RBM is then measured on
    the recordings that chose its weights.

    Returns
    -------
    collector : ReportCollector
    measured : list of AnnotatedRecording
    """
    trained = made.trained
    card = complete_card(trained.config.card, job.dataset, job.out)
    about = card.model_dump(include={"name", "species", "licence", "attribution"})
    folder = job.work_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    bundle = write_bundle(folder, trained, about, made.training)
    collector = ReportCollector(bundle)
    measured, validated = data.split.test, trained.validated
    with watched_stage(reporter, stop, "test") as watch:
        if measured or validated is None:
            measured = measured or data.split.valid
            figures = evaluate_bundle(bundle, measured, watch, collector.add)
        else:
            fold_of = _write_folds(job.work_path / "folds", made, about)
            measured = [example.recording for example in validated.left_out]
            figures = evaluate_bundle(
                bundle, measured, watch, collector.add, fold_of, data.split.valid
            )
            shutil.rmtree(job.work_path / "folds", ignore_errors=True)
    figures = {"measured_on": measured_on(data.split, validated), **figures}
    if trained.calibrated is not None and trained.calibrated.figures:
        figures["cross_validation"] = trained.calibrated.figures
    if trained.rnn_rbm is not None:
        figures["rnn_rbm"] |= linear_errors(
            bundle,
            data.train,
            data.split.test or data.split.valid,
            figures["rnn_rbm"]["mse"],
        )
    finished = bundle.manifest.model_copy(update={"figures": figures})
    page = card_page(finished, card.description)
    write_file(folder / "README.md", plain(page).encode())
    write_history(folder, made.histories)
    write_manifest(folder, finished)
    load_bundle(folder)
    return collector, measured


def measured_on(split: Split, validated: CrossValidated | None) -> str:
    """Return what recordings the figures of a bundle are from, for people."""
    if split.test:
        return "the test split"
    if validated is None:
        return "the validation split, which chose the weights"
    return (
        f"recordings left out of the training in turn ({validated.folds.rule}); the "
        "bundle is trained on all"
    )


def _write_folds(
    folder: Path, made: Made, about: dict[str, Any]
) -> Callable[[AnnotatedRecording], Bundle]:
    """Write a bundle of each network of the cross-validation.

    Returns
    -------
    callable
        Maps a recording to the bundle that was not trained on it.
    """
    validated = made.trained.validated
    assert validated is not None
    by_recording: dict[int, Bundle] = {}
    for number, (part, network) in enumerate(
        zip(validated.folds.parts, validated.networks, strict=True)
    ):
        alone = replace(made.trained, classifier=network, rnn_rbm=None, forecast=None)
        written = write_bundle(folder / str(number), alone, about, made.training)
        for place in part:
            by_recording[id(validated.examples[place].recording)] = written
    return lambda recording: by_recording[id(recording)]
