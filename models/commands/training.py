"""Commands ``neurovocal train`` and ``neurovocal evaluate``.

torch is imported when a command runs: without it the command line works, and these
commands name the extra to install.
"""

import json
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.evaluation.figure_tables import (
    print_figures,
    print_label_in_time,
)

if TYPE_CHECKING:
    from neurovocal.models.data.datasets import AnnotatedRecording
    from neurovocal.models.data.formats.segments import AnnotationChoice
    from neurovocal.models.toolkit.problems import Problems
    from neurovocal.models.training.workspace import TrainingJob

# Modules that the report needs.
_REPORT = ("matplotlib", "jinja2")

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="F",
        help="Annotation format: raven, audacity (or aud-seq), textgrid, notmat, "
        "simple-seq, timit, birdsong-recognition-dataset, ...; default: "
        "annotations.csv.",
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column", metavar="NAME", help="Column of the labels in the tables."
    ),
]
Tier = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Interval tier of TextGrids: name or number."),
]
Channels = Annotated[
    str | None,
    typer.Option(
        metavar="N,...",
        help="Channels that are used, with their labels. Default: those that labels "
        "name, or else the first.",
    ),
]


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
    require_modules("torch", "onnx", *_REPORT)
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


def evaluate(
    bundle: Annotated[
        str, typer.Argument(help="Bundle, or the name of one that ships.")
    ],
    dataset: Annotated[
        Path, typer.Argument(help="Folder of recordings with annotations.csv.")
    ],
    annotation_format: Format = None,
    label_column: LabelColumn = None,
    tier: Tier = None,
    channels: Channels = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Only recordings for which files.csv says so, such as split=valid.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write DIR/index.html, a page with pictures, too."
        ),
    ] = None,
    synthesis: Annotated[
        bool,
        typer.Option(
            "--synthesis",
            help="Measure generated song beside real song and two baselines.",
        ),
    ] = False,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Measure labels in time of the profile `fast`, and what they cost.",
        ),
    ] = False,
    resynthesis: Annotated[
        bool,
        typer.Option(
            "--resynthesis",
            help="Compare labels of recordings and of their resynthesis.",
        ),
    ] = False,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1.0, help="Song to draw per row.")
    ] = 80.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn song.")] = 0,
    against: Annotated[
        Literal["test", "valid"],
        typer.Option(help="Recordings that drawn song is compared with."),
    ] = "test",
    picture: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Spectrograms of real and drawn song."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Measure a bundle on annotated recordings, run as the engine runs it.

    With --synthesis the bundle sings, and its song is compared with recordings
    that it was not trained on.
    """
    require_modules("torch", *(("onnx", *_REPORT) if report else ()))
    if picture is not None:
        require_modules("matplotlib")
    from neurovocal.models.data.soundness import read_recordings
    from neurovocal.models.evaluation.checks import check_sound
    from neurovocal.models.toolkit.problems import Problems
    from neurovocal.plugins.storage.existing import any_of
    from neurovocal.plugins.storage.text_file import output_problems

    problems = Problems()
    if picture is not None:
        if not synthesis:
            problems.add(["--picture draws generated song: add --synthesis"])
        png = any_of("a PNG picture", b"\x89PNG")
        found = list(output_problems(str(picture), png))
        if not found and picture.suffix.lower() != ".png":
            found = [f"--picture '{picture}': a picture is a PNG: end it in .png"]
        problems.add(found)
    written = [picture] if picture is not None else []
    if report is not None:
        from neurovocal.models.report.page import PAGE_NAME, folder_problems

        if synthesis:
            problems.add(
                ["--report and --synthesis exclude each other: give one of them"]
            )
        problems.add(folder_problems(report))
        written.append(report / PAGE_NAME)
    if fast and (synthesis or report is not None):
        problems.add(["--fast stands alone: leave --synthesis and --report out"])
    if resynthesis and (fast or synthesis or report is not None):
        problems.add(
            ["--resynthesis stands alone: leave --fast, --synthesis and --report out"]
        )
    loaded = problems.of(lambda: load_bundle(bundle))
    choice = problems.of(lambda: label_choice(label_column, tier, channels))
    recordings = problems.of(
        lambda: _read_recordings(dataset, annotation_format, choice, split, problems)
    )
    if problems and recordings is not None:
        there = recordings
        problems.of(lambda: read_recordings(there))
    problems.refuse()
    assert loaded is not None
    assert recordings is not None
    reads = {
        "recording": [recording.path for recording in recordings],
        "bundle": [loaded.folder],
    }
    refuse_overlap("output", reads, written)
    check_sound(loaded, recordings)
    if synthesis:
        _evaluate_synthesis(
            loaded, recordings, seconds, seed, against, picture, as_json
        )
        return
    if fast:
        _evaluate_fast(loaded, recordings, as_json)
        return
    if resynthesis:
        from neurovocal.models.evaluation.resynthesis import evaluate_round_trip

        evaluate_round_trip(loaded, recordings, as_json)
        return
    part = f"{dataset.resolve().name}{f', {split}' if split else ''}"
    _evaluate_recordings(loaded, recordings, part, report, as_json)


def label_choice(
    label_column: str | None, tier: str | None, channels: str | None
) -> "AnnotationChoice":
    """Return which labels are meant; raises ConfigError for faulty channels."""
    from neurovocal.models.data.formats.segments import AnnotationChoice

    numbers = [part.strip() for part in channels.split(",")] if channels else []
    wrong = [n for n in numbers if not (n.isascii() and n.isdigit() and int(n))]
    if wrong or len({*numbers}) < len(numbers):
        raise ConfigError(
            f"--channels: '{channels}' is no list of channels such as 1 or 1,2"
        )
    return AnnotationChoice(label_column, tier, tuple(sorted(map(int, numbers))))


def _read_recordings(
    dataset: Path,
    annotation_format: str | None,
    choice: "AnnotationChoice | None",
    split: str | None,
    problems: "Problems",
) -> list["AnnotatedRecording"]:
    """Read a dataset's recordings; `split` (COLUMN=VALUE) selects by files.csv.

    Mistakes of the dataset are added to `problems`.
    """
    from neurovocal.models.data.annotations import truncate_problems
    from neurovocal.models.data.datasets import survey_dataset
    from neurovocal.models.data.files_table import part_of

    read, mistakes = survey_dataset(dataset, annotation_format, choice)
    problems.add(truncate_problems(mistakes))
    for note in read.notes:
        typer.echo(f"note: {note}", err=True)
    recordings = list(read.recordings)
    if split is None:
        return recordings
    named, _, value = split.partition("=")
    column, value = named.strip().casefold(), value.strip()
    words = {r.columns.get(column, "") for r in recordings} - {""}
    wanted = {value}
    if value not in words and (part := part_of(value)) and all(map(part_of, words)):
        wanted = {word for word in words if part_of(word) == part}
    selected = [r for r in recordings if r.columns.get(column) in wanted]
    if not selected:
        there = ", ".join(sorted(words)) or f"no column '{named.strip()}'"
        raise ConfigError(
            f"--split {split}: files.csv has no such recording (there is {there})"
        )
    return selected


def _evaluate_synthesis(
    bundle: Bundle,
    recordings: list["AnnotatedRecording"],
    seconds: float,
    seed: int,
    against: Literal["test", "valid"],
    picture: Path | None,
    as_json: bool,
) -> None:
    """Compare generated song with recordings, print the result, draw `picture`."""
    from neurovocal.models.evaluation.synthesis.quality import (
        evaluate_synthesis,
        print_quality,
    )
    from neurovocal.models.toolkit.progress import Reporter

    examples: dict[str, Any] = {}
    with Reporter().stage("synthesis") as on_progress:
        quality = evaluate_synthesis(
            bundle,
            recordings,
            seconds=seconds,
            seed=seed,
            against=against,
            watch=on_progress,
            show=lambda name, songs: examples.update({name: songs[0]}),
        )
    if picture is not None:
        from neurovocal.models.generation.pictures import draw_songs

        draw_songs(picture, examples, bundle.manifest.front_end)
    if as_json:
        typer.echo(json.dumps(quality))
    else:
        print_quality(quality)


def _evaluate_fast(
    bundle: Bundle, recordings: list["AnnotatedRecording"], as_json: bool
) -> None:
    """Measure the labels of the profile ``fast``, and print them as a table or JSON.

    Raises
    ------
    ConfigError
        The bundle has no classifier.
    """
    from neurovocal.models.data.targets import Units
    from neurovocal.models.evaluation.label_latency import measure_fast_labels
    from neurovocal.models.toolkit.progress import Reporter

    spec = bundle.manifest.classifier
    if spec is None:
        raise ConfigError(f"--fast: bundle '{bundle.folder}' has no classifier")
    names = [spec.silence, *(unit for unit in spec.units if unit != spec.silence)]
    units = Units(names, {name: n for n, name in enumerate(names) if n})
    with Reporter().stage("evaluate") as on_progress:
        figures = measure_fast_labels(
            bundle, recordings, units, lambda share: on_progress(share, "")
        )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    console = Console(highlight=False)
    print_label_in_time(console, figures["rows"])
    for name in ("first_wrong_percent", "revised_percent", "false_percent"):
        heading = name.removesuffix("_percent").replace("_", " ")
        console.print(f"{heading}: {figures[name]:g} % of the vocalizations")


def _evaluate_recordings(
    bundle: Bundle,
    recordings: list["AnnotatedRecording"],
    part: str,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure a bundle on recordings, print the figures, write a report to a folder.

    Parameters
    ----------
    part : str
        Name of the recordings in the report.
    report : Path, optional
        Folder of the report; None writes none.
    """
    from neurovocal.models.evaluation.evaluate import evaluate_bundle
    from neurovocal.models.report.collector import ReportCollector
    from neurovocal.models.toolkit.progress import Reporter

    collector, reporter = ReportCollector(bundle), Reporter()
    with reporter.stage("evaluate") as on_progress:
        figures = evaluate_bundle(
            bundle, recordings, lambda share: on_progress(share, ""), collector.add
        )
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        print_figures(figures)
    if report is None:
        if not as_json:
            reporter.print_message(
                "docs/how-to/training.md explains the figures; --report DIR draws them"
            )
        return
    from neurovocal.models.report.page import Measurement, write_report

    with reporter.stage("report") as on_progress:
        page = write_report(
            report,
            bundle,
            figures,
            Measurement(part, command_line()),
            collector,
            recordings,
            lambda share: on_progress(share, ""),
        )
    reporter.print_message(f"{page}: what was learned, and how well")


def require_modules(*modules: str) -> None:
    """Raise ConfigError if a module is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        *first, last = missing
        names = f"{', '.join(first)} and {last}" if first else last
        raise ConfigError(
            f"this command needs {names}, which {'are' if first else 'is'} not "
            "installed: pip install 'neurovocal[train]'"
        )


def _resolve_recipe(config: Path | None) -> Path | None:
    """Return a recipe's path, also if `config` is the name of a built-in recipe."""
    if config is None or config.exists():
        return config
    from importlib.resources import files

    name = config.name if config.suffix else f"{config.name}.yaml"
    built_in = Path(str(files("neurovocal.configs"))) / name
    return built_in if built_in.is_file() else config


def command_line() -> str:
    """Return the command line, for the record in the bundle."""
    return shlex.join(["neurovocal", *sys.argv[1:]])
