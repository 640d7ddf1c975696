"""Command ``neurovocal evaluate``.

torch is imported when the command runs: without it the command line works, and it
names the extra to install.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.contracts.bundle import Bundle, load_bundle
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
    print_label_in_time,
)

if TYPE_CHECKING:
    from neurovocal.models.data.datasets import AnnotatedRecording
    from neurovocal.models.data.formats.segments import AnnotationChoice
    from neurovocal.models.toolkit.problems import Problems


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
    require_modules("torch", *(("onnx", *REPORT) if report else ()))
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
    if fast and loaded is not None and loaded.manifest.classifier is None:
        problems.add([f"--fast: bundle '{loaded.folder}' has no classifier"])
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
    for note in read.notes if not mistakes else ():
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
    """Measure the labels of the profile ``fast``, and print them as a table or JSON."""
    from neurovocal.models.data.targets import Units
    from neurovocal.models.evaluation.label_latency import measure_fast_labels
    from neurovocal.models.toolkit.progress import Reporter

    spec = bundle.manifest.classifier
    assert spec is not None
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
