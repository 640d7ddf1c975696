"""Training of all networks, from a dataset to a verified bundle."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import (
    AudioFileError,
    BundleError,
    ConfigError,
    NeurovocalError,
)
from neurovocal.models.data.annotations import truncate_problems
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset, survey_dataset
from neurovocal.models.data.prepare import compute_frames
from neurovocal.models.data.soundness import read_recordings
from neurovocal.models.data.split.folds import make_folds
from neurovocal.models.data.split.recordings import (
    check_words,
    select_recordings,
)
from neurovocal.models.report.collector import ReportCollector
from neurovocal.models.report.page import REPORT_FOLDER, Measurement, write_report
from neurovocal.models.toolkit.files import (
    DiskError,
    reason_of,
    writing,
)
from neurovocal.models.toolkit.loop import (
    StopFlag,
    TrainingInterrupted,
)
from neurovocal.models.toolkit.problems import Problems
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.training.checks import check_training
from neurovocal.models.training.finish import Made, export_bundle, watched_stage
from neurovocal.models.training.record import summary, training_record
from neurovocal.models.training.stages import TrainingStages
from neurovocal.models.training.transfer import Origin, load_origin
from neurovocal.models.training.unlabelled import leave_out_known, read_unlabelled
from neurovocal.models.training.workspace import (
    TrainingJob,
    claim_work_folder,
    install_bundle,
    out_problems,
    with_real_out,
    work_folder,
)

# A training of limited time has no more folds.
_TIMED_FOLDS = 2


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
    unlabelled = problems.of(lambda: read_unlabelled(job, config)) or []
    dataset = _read(job, config, problems)
    unlabelled = leave_out_known(unlabelled, dataset.recordings, reporter)
    with _told_about_checkpoints(job), work_folder(job):
        collector, test = _make_bundle(
            job, config, dataset, origin, unlabelled, reporter, stop
        )
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
                Measurement(bundle.manifest.figures["measured_on"], job.command),
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
    unlabelled: list[AnnotatedRecording],
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
    with watched_stage(reporter, stop, "reading") as watch:
        plan, sounds = check_training(dataset, config, n_bins, watch)
    plan.warnings.extend(more)
    start = [origin.digest] if origin else []
    start += [f"{r.file} {r.duration_s}" for r in unlabelled]
    claim_work_folder(job, config, plan, sounds, start)
    for warning in [*dataset.notes, *plan.warnings]:
        reporter.print_message(f"note: {warning}")
    reporter.print_message(summary(plan, config))
    with writing(job.frames_path):
        job.frames_path.mkdir(exist_ok=True)
    with watched_stage(reporter, stop, "frames") as watch:
        data = compute_frames(
            plan, config, lambda share, note: watch(share), scaling, job.frames_path
        )

    options = config.split
    if job.minutes is not None:
        options = options.model_copy(update={"folds": min(_TIMED_FOLDS, options.folds)})
    folds = make_folds(data.split, options, config.seed)
    if config.classifier is not None:
        reporter.print_message(f"cross-validation: {folds.rule}")
    stages = TrainingStages(
        job, config, data, origin, reporter, stop, folds, unlabelled
    )
    trained, histories = stages.run()
    training = training_record(job.command, config, dataset, data, histories)
    if trained.validated is not None:
        training["cross_validation"] = folds.rule
    if origin is not None:
        training["from"] = origin.record
    made = Made(trained, training, histories)
    collector, measured = export_bundle(job, made, reporter, stop, data)
    install_bundle(job)
    return collector, measured
