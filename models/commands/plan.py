"""``neurovocal plan``: add the network that sings after a plan to a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.commands.options import (
    Channels,
    Format,
    LabelColumn,
    Tier,
    command_line,
    label_choice,
    require_modules,
)


def plan(
    bundle: Annotated[
        str,
        typer.Argument(help="Bundle with classifier, forecast and RNN-RBM, or a name."),
    ],
    dataset: Annotated[
        Path, typer.Argument(help="Folder of recordings with annotations.csv.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Bundle to be made.")
    ],
    annotation_format: Format = None,
    label_column: LabelColumn = None,
    tier: Tier = None,
    channels: Channels = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the training.")] = 0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget an unfinished training.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is there.")
    ] = False,
) -> None:
    """Train the network that sings after a plan, and add it to a copy of a bundle.

    Then: neurovocal generate DIR --units "a b c". Recordings of the bundle's test
    are left out. Ctrl-C keeps a checkpoint; the same command goes on from it.
    """
    require_modules("torch", "onnx")
    from neurovocal.models.data.annotations import truncate_problems
    from neurovocal.models.data.datasets import survey_dataset
    from neurovocal.models.toolkit.loop import stop_on_signal
    from neurovocal.models.toolkit.progress import Reporter
    from neurovocal.models.training.plan import add_plan
    from neurovocal.models.training.workspace import TrainingJob

    job = TrainingJob(
        dataset,
        out,
        annotation_format,
        restart=restart,
        overwrite=overwrite,
        command=command_line(),
        origin=bundle,
        choice=label_choice(label_column, tier, channels),
    )
    found, mistakes = survey_dataset(dataset, annotation_format, job.choice)
    if mistakes:
        raise ConfigError(truncate_problems(mistakes))
    reporter = Reporter()
    with stop_on_signal() as stop:
        made = add_plan(job, found.recordings, seed, reporter, stop)
    heard = made.manifest.figures["plan"]
    typer.echo(
        f"the classifier hears {heard['heard_percent']:g} % of {heard['units']} "
        "planned units as planned"
    )
    for planned, other, n in heard["confused"]:
        typer.echo(f"  {planned} as {other}: {n}")
