"""Command ``neurovocal train``.

torch is imported when the command runs: without it the command line works, and it
names the extra to install.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.commands.options import (
    REPORT,
    Channels,
    Format,
    LabelColumn,
    Tier,
    command_line,
    label_choice,
    require_modules,
)
from neurovocal.models.evaluation.figure_tables import (
    print_figures,
)

if TYPE_CHECKING:
    from neurovocal.models.training.workspace import TrainingJob


def train(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET...",
            help="Folder of recordings with annotations.csv; several with --detector.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Bundle to be made.")
    ],
    detector: Annotated[
        bool,
        typer.Option(
            "--detector",
            help="Train a detector network instead. Datasets without annotations are "
            "backgrounds.",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="C", help="Recipe, such as train.yaml."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            min=0.01,
            help="Time for training the networks and choosing the detector; frames, "
            "test and report come on top. Default: the recipe's updates.",
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="Start from this bundle's weights and front end: a folder, or the "
            "name of one that ships.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A minute for two minutes of song: fewer updates, no song."
        ),
    ] = False,
    test: Annotated[
        bool,
        typer.Option(
            "--test",
            help="Draw a test split where the dataset names none. Default: train on "
            "all, with the figures of a cross-validation.",
        ),
    ] = False,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Train on recordings without labels, too, where the networks of the "
            "cross-validation are sure.",
        ),
    ] = None,
    unknown_cost: Annotated[
        float | None,
        typer.Option(
            metavar="C",
            min=1.0,
            max=1e6,
            help="What a wrong name costs against no name, which is `unknown`. "
            "Default: 2.",
        ),
    ] = None,
    annotation_format: Format = None,
    label_column: LabelColumn = None,
    tier: Tier = None,
    channels: Channels = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="In place of the recipe's seed.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads, in place of the recipe's.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget an unfinished training.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is there.")
    ] = False,
) -> None:
    """Train a classifier and an RNN-RBM, or a detector, as a verified bundle.

    Ctrl-C keeps a checkpoint beside DIR; the same command goes on from it, also
    after a kill.
    """
    if detector:
        unused = {
            "--from": origin,
            "--format": annotation_format,
            "--label-column": label_column,
            "--tier": tier,
            "--channels": channels,
            "--quick": quick or None,
            "--test": test or None,
            "--unknown-cost": unknown_cost,
            "--unlabelled": unlabelled,
        }
        given = [name for name, value in unused.items() if value is not None]
        if given:
            raise ConfigError(
                f"{' and '.join(given)}: not with --detector, which reads "
                "annotations.csv and starts from nothing: leave it out"
            )
        own = {"seed": seed, "threads": threads}
        job = _detector_job(datasets, out, minutes, restart, overwrite)
        _train_detector(datasets, job, config, own)
        return
    if len(datasets) > 1:
        raise ConfigError(
            f"{len(datasets)} datasets are given: a bundle is trained on one; several "
            "are for --detector"
        )
    (dataset,) = datasets
    require_modules("torch", "onnx", *REPORT)
    from neurovocal.models.data.annotations import truncate_problems
    from neurovocal.models.data.datasets import survey_dataset
    from neurovocal.models.toolkit.loop import stop_on_signal
    from neurovocal.models.toolkit.problems import Problems
    from neurovocal.models.toolkit.progress import Reporter
    from neurovocal.models.toolkit.recipe import adapted, load_config
    from neurovocal.models.training.train import train_bundle
    from neurovocal.models.training.workspace import (
        TrainingJob,
        out_problems,
        with_real_out,
    )

    problems = Problems()
    recipe = problems.of(lambda: load_config(_resolve_recipe(config)))
    job = TrainingJob(
        dataset,
        out,
        annotation_format,
        minutes,
        restart,
        overwrite,
        command=command_line(),
        origin=origin,
        choice=problems.of(lambda: label_choice(label_column, tier, channels)),
        unlabelled=unlabelled,
    )
    if recipe is None or job.choice is None:
        problems.add(out_problems(with_real_out(job)))
        found = problems.of(
            lambda: survey_dataset(dataset, annotation_format, job.choice)
        )
        problems.add(truncate_problems(found[1]) if found else [])
        problems.refuse()
    assert recipe is not None
    recipe = adapted(
        recipe, {"seed": seed, "threads": threads}, quick, test, unknown_cost
    )
    with stop_on_signal() as stop:
        bundle = train_bundle(job, recipe, Reporter(), stop)
    print_figures(bundle.manifest.figures)


def _detector_job(
    datasets: list[Path],
    out: Path,
    minutes: float | None,
    restart: bool,
    overwrite: bool,
) -> "TrainingJob":
    """Return the arguments of the training of a detector."""
    require_modules("torch", "onnx")
    from neurovocal.models.training.workspace import TrainingJob

    return TrainingJob(
        datasets[0],
        out,
        minutes=minutes,
        restart=restart,
        overwrite=overwrite,
        command=command_line(),
    )


def _train_detector(
    datasets: list[Path],
    job: "TrainingJob",
    config: Path | None,
    own: dict[str, int | None],
) -> None:
    """Train a detector network; `own` replaces values of the recipe."""
    from neurovocal.models.detection.recipe import load_recipe
    from neurovocal.models.detection.train import train_detector
    from neurovocal.models.toolkit.loop import stop_on_signal
    from neurovocal.models.toolkit.progress import Reporter

    recipe = load_recipe(_resolve_recipe(config))
    given = {name: value for name, value in own.items() if value is not None}
    recipe = recipe.model_copy(update=given)
    with stop_on_signal() as stop:
        bundle = train_detector(datasets, job, recipe, Reporter(), stop)
    print_figures(bundle.manifest.figures)


def _resolve_recipe(config: Path | None) -> Path | None:
    """Return a recipe's path, also if `config` is the name of a built-in recipe."""
    if config is None or config.exists():
        return config
    from importlib.resources import files

    name = config.name if config.suffix else f"{config.name}.yaml"
    built_in = Path(str(files("neurovocal.configs"))) / name
    return built_in if built_in.is_file() else config
