"""``neurovocal explain``: why a bundle gave its labels, as a page to see and hear."""

import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Label
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import did_you_mean, printable
from neurovocal.plugins.sources.audio_files.file import find_recordings

_MOST_S = 600.0  # of all recordings; trials keep all frames in memory
_MISSING = "needs {}, which is not installed: pip install 'neurovocal[train]'"


def explain(
    recordings: Annotated[
        list[str],
        typer.Argument(help="Recordings, folders, globs.", metavar="RECORDINGS..."),
    ],
    bundle: Annotated[
        str, typer.Option(metavar="DIR", help="Model bundle, or one that ships.")
    ] = "bengalese-finch",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the page.")
    ] = Path("explanation"),
    at: Annotated[
        list[float] | None,
        typer.Option(
            metavar="S",
            min=0,
            help="Explain the label at this second, or the nearest; repeatable.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="UNIT", help="Choose among labels of this unit."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT",
            help="What would have made it this unit? Default: the second best.",
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            min=1, max=100, metavar="N", help="Labels, those of least posterior first."
        ),
    ] = 8,
    channel: Annotated[int, typer.Option(min=1, metavar="N", help="From 1.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Explain labels: which frames decided, and what would have made another.

    Writes a page with pictures and sounds of the recordings: the least certain
    labels with their reasons, the smallest change found that makes each another
    unit, and what hidden units listen to. Times of --at count from the start of
    the first recording.
    """
    if missing := [m for m in ("matplotlib", "jinja2", "onnx") if not find_spec(m)]:
        raise ConfigError("explain " + _MISSING.format(" and ".join(missing)))
    loaded = load_bundle(bundle)
    _check_units(loaded, label, against)
    found = _find(recordings)
    _check_out(out, loaded, [path for path, _ in found])

    from neurovocal.models.report.draw import FrameAxes
    from neurovocal.models.report.explanation.heard import HeardRecording, Listener
    from neurovocal.models.report.explanation.sections import (
        describe,
        explain_labels,
        label_section,
        sentences,
        unit_section,
    )
    from neurovocal.models.report.page import write_explanation
    from neurovocal.models.toolkit.progress import Reporter

    reporter, listener = Reporter(), Listener(loaded)
    heard: list[HeardRecording] = []
    seconds = 0.0
    with reporter.stage("listen") as on_progress:
        for path, name in found:
            if heard and seconds >= _MOST_S:
                reporter.print_message(
                    f"note: {len(heard)} of {len(found)} recordings are heard, the "
                    f"first {seconds:.0f} s: name fewer to choose others"
                )
                break
            heard.append(listener.hear(path, name, channel))
            seconds += len(heard[-1].samples) / listener.rate
            on_progress(min(1.0, len(heard) / len(found)), "")
    _check_times(at or (), heard[0].name, len(heard[0].samples) / listener.rate)
    labels = [recording.labels for recording in heard]
    wanted = _choose(labels, listener.rate, at, label, count)
    axes = FrameAxes(loaded)
    with reporter.stage("explain") as on_progress:
        explained = explain_labels(
            listener, heard, wanted, against, lambda share: on_progress(share, "")
        )
        sections = [label_section(listener, axes, explained)]
        units = unit_section(listener, axes, heard)
        sections += [] if units is None else [units]
    facts = [
        ("heard", f"{len(heard)} of {len(found)} recordings, {seconds:.1f} s"),
        ("labels", f"{sum(map(len, labels))}, {len(explained)} of them explained"),
        ("made by", shlex.join(["neurovocal", *sys.argv[1:]])),
    ]
    page = write_explanation(at_home(out), loaded, facts, sections)
    if as_json:
        rows = [describe(listener, axes, one) for one in explained]
        typer.echo(json.dumps({"page": str(page), "labels": rows}))
        return
    for one in explained:
        start_s = one.segment.label.onset / listener.rate
        name, given = one.segment.recording.name, one.segment.label
        typer.echo(
            printable(f"{name} {start_s:.3f} s: {given.unit} ({given.posterior:.2f})")
        )
        for sentence in sentences(listener, axes, one):
            typer.echo(_wrapped(printable(sentence)))
    if not explained:
        typer.echo(_nothing(labels, label), err=True)
    reporter.print_message(f"{page}: open it to see and hear them")


def _wrapped(sentence: str) -> str:
    """Return an indented sentence in lines of 80 columns."""
    return textwrap.fill(
        sentence,
        80,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _check_units(bundle: Bundle, *names: str | None) -> None:
    """Raise ConfigError if a unit is not one of the bundle's."""
    spec = bundle.manifest.classifier
    if spec is None:
        raise ConfigError(
            f"bundle '{bundle.manifest.name}' has no classifier: it gives no labels "
            "that could be explained"
        )
    known = [unit for unit in spec.units if unit != spec.silence]
    label, against = names
    problems = []
    if label not in (None, spec.unknown, *known):
        problems.append(f"--label {label}: {did_you_mean(str(label), known)}")
    if against not in (None, *known):
        problems.append(f"--against {against}: {did_you_mean(str(against), known)}")
    if len(known) < 2:
        problems.append("the bundle knows one unit: there is none to compare it with")
    if problems:
        raise ConfigError(problems)


def _check_times(seconds: Sequence[float], name: str, duration_s: float) -> None:
    """Raise ConfigError if a time is not in the first recording."""
    late = [second for second in seconds if second > duration_s]
    if late:
        raise ConfigError(
            f"--at {late[0]:g}: '{name}' ends at {duration_s:.3f} s; times count from "
            "the start of the first recording"
        )


def _find(names: Sequence[str]) -> list[tuple[Path, str]]:
    """Return the recordings with the names to show."""
    context = BuildContext(SystemClock(), "")
    paths = [
        path
        for name in names
        for path in find_recordings(name, context, recursive=True)
    ]
    return [(path, path.name) for path in dict.fromkeys(paths)]


def _check_out(out: Path, bundle: Bundle, recordings: Sequence[Path]) -> None:
    from neurovocal.models.report.page import EXPLANATION_KIND, folder_problems

    if problems := list(folder_problems(at_home(out), EXPLANATION_KIND)):
        raise ConfigError(problems)
    reads = {"bundle": [bundle.folder], "recording": list(recordings)}
    refuse_overlap("--out", reads, [at_home(out)])


def _choose(
    labels: Sequence[Sequence[Label]],
    rate: int,
    at: Sequence[float] | None,
    unit: str | None,
    count: int,
) -> list[list[Label]]:
    """Return the labels to explain, per recording."""
    kept = [[one for one in own if unit in (None, one.unit)] for own in labels]
    if at:
        first = kept[0] if kept else []
        if not first:
            return [[] for _ in kept]
        chosen = {
            min(first, key=lambda one: _distance(one, second * rate)).segment
            for second in at
        }
        own = [one for one in first if one.segment in chosen]
        return [own, *([] for _ in kept[1:])]
    every = [
        (one.posterior, place, one) for place, own in enumerate(kept) for one in own
    ]
    every.sort(key=lambda each: each[:2])
    wanted: list[list[Label]] = [[] for _ in kept]
    for _, place, one in every[:count]:
        wanted[place].append(one)
    return wanted


def _distance(label: Label, sample: float) -> float:
    """Return how far a sample is from a segment; 0 inside."""
    stop = label.onset if label.offset is None else label.offset
    return max(label.onset - sample, sample - stop, 0.0)


def _nothing(labels: Sequence[Sequence[Any]], unit: str | None) -> str:
    if unit is not None and any(labels):
        return f"nothing was labelled {unit} in these recordings"
    return (
        "nothing was found in these recordings: `neurovocal detect --explain` shows why"
    )
