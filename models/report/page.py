"""The HTML page of a report: header and sections in one file."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.support.outputs import folder_problem
from neurovocal.engine.support.text import plain
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.report.classifier import (
    classifier_section,
    extra_parts,
)
from neurovocal.models.report.collector import ReportCollector
from neurovocal.models.report.draw import FrameAxes
from neurovocal.models.report.history import history_section
from neurovocal.models.report.parts import Section
from neurovocal.models.report.rnn_rbm import rnn_rbm_section
from neurovocal.models.report.tables import ReportTable
from neurovocal.models.toolkit.files import write_file, writing
from neurovocal.plugins.storage.existing import FileKind, existing_problems

REPORT_FOLDER = "report"
PAGE_NAME = "index.html"
_REPORT_KIND = FileKind(
    "a report", lambda head: b": training report</title>" in head.split(b"<style>")[0]
)
EXPLANATION_KIND = FileKind(
    "an explanation", lambda head: b": explanation</title>" in head.split(b"<style>")[0]
)
_OWN_SECTIONS = {
    *("recordings", "seconds", "measured_on"),
    *("classifier", "rnn_rbm", "label_in_time"),
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """Data set of the figures, and the command that measured them."""

    on: str
    command: str


def folder_problems(folder: Path, kind: FileKind = _REPORT_KIND) -> Iterator[str]:
    """Yield a sentence for each reason why a page cannot be written to a folder.

    An existing page is replaced only if it is of the same kind.
    """
    if (problem := folder_problem(folder)) is not None:
        yield f"report folder '{folder}' cannot be written: {problem}; name another"
    elif (page := folder / PAGE_NAME).is_dir():
        yield f"'{page}' is a folder: name another for the report"
    else:
        yield from existing_problems(kind, page)


def write_report(
    folder: Path,
    bundle: Bundle,
    figures: Mapping[str, Any],
    measured: Measurement,
    collector: ReportCollector,
    recordings: Sequence[AnnotatedRecording],
    watch: Callable[[float], None] = lambda share: None,
) -> Path:
    """Write a self-contained page about a bundle.

    Parameters
    ----------
    folder : Path
        Folder of ``index.html``; created where it is absent.
    bundle : Bundle
        Complete bundle; its graphs are run as in the engine.
    figures : mapping
        Result of `evaluate_bundle`.
    measured : Measured
        Data set and command of the figures.
    collector : Tally
        Observer of the evaluation.
    recordings : sequence of AnnotatedRecording
        Evaluated recordings.
    watch : callable
        Called with the completed share.

    Returns
    -------
    Path
        Path of the page. The same bundle, figures and recordings give the same bytes.

    Raises
    ------
    ConfigError
        A recording cannot be read.
    DiskError
        The page cannot be written.
    """
    axes, manifest = FrameAxes(bundle), bundle.manifest
    sections: list[Section] = []
    history = history_section(bundle)
    if history is not None:
        sections.append(history)
    watch(0.1)
    if manifest.classifier is not None and "classifier" in figures:
        found = {**figures["classifier"], **_subset(figures, "label_in_time")}
        sections.append(classifier_section(bundle, axes, found, collector, recordings))
    watch(0.4)
    if manifest.rnn_rbm is not None and "rnn_rbm" in figures:
        found = figures["rnn_rbm"]
        sections.append(
            rnn_rbm_section(
                bundle,
                axes,
                found,
                recordings,
                lambda share: watch(0.4 + 0.6 * share),
            )
        )
    rest = {k: v for k, v in figures.items() if k not in _OWN_SECTIONS}
    if parts := extra_parts(rest):
        sections.append(Section("more", "More measures", "", parts))
    page = _template().render(
        **_header(bundle, figures, measured, recordings),
        kind="training report",
        sections=sections,
    )
    path = _write(folder, page)
    watch(1.0)
    return path


def write_explanation(
    folder: Path,
    bundle: Bundle,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
) -> Path:
    """Write the page of an explanation of labels; return its path.

    Parameters
    ----------
    folder : Path
        Folder of ``index.html``; created where it is absent.
    bundle : Bundle
        Whose labels are explained.
    facts : sequence of (str, str)
        Rows of the page's head.
    sections : sequence of Section

    Raises
    ------
    DiskError
        The page cannot be written.
    """
    manifest = bundle.manifest
    page = _template().render(
        name=manifest.name,
        species=manifest.species,
        licence=manifest.licence,
        attribution=manifest.attribution,
        facts=facts,
        splits=None,
        recordings=[],
        notes=[],
        kind="explanation",
        sections=sections,
    )
    return _write(folder, page)


def _write(folder: Path, page: str) -> Path:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE_NAME
    write_file(path, plain(page).encode())
    return path


def _subset(figures: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: figures[name] for name in names if name in figures}


def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["prose"] = _markup
    text = files("neurovocal.models.report").joinpath("page.html").read_text("utf-8")
    return environment.from_string(text)


def _markup(text: str) -> Markup:
    """Escape text for HTML; parts between backticks become ``<code>``."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _header(
    bundle: Bundle,
    figures: Mapping[str, Any],
    measured: Measurement,
    recordings: Sequence[AnnotatedRecording],
) -> dict[str, Any]:
    manifest = bundle.manifest
    training, front_end = manifest.training, manifest.front_end
    hop_ms = front_end.hop_length / front_end.sample_rate * 1000
    networks = training.get("networks", {})
    minutes = ", ".join(
        f"{name.replace('_', '-')} {entry.get('minutes', 0):g} min "
        f"({entry.get('updates', 0)} updates)"
        for name, entry in networks.items()
    )
    facts = [
        (
            "measured on",
            f"{measured.on}: {figures['recordings']} recordings, "
            f"{figures['seconds']:g} s",
        ),
        ("measured by", measured.command),
        ("trained on", training.get("dataset")),
        ("trained by", training.get("command")),
        ("date of training", training.get("date")),
        ("time taken", minutes),
        ("seed", training.get("recipe", {}).get("seed")),
        ("split", training.get("split")),
        (
            "front end",
            f"{front_end.plugin}: {front_end.n_bins} bins, a frame of "
            f"{front_end.frame_length} samples every {front_end.hop_length} "
            f"({hop_ms:.3g} ms) at {front_end.sample_rate} Hz",
        ),
    ]
    if measured.command == training.get("command"):
        facts = [fact for fact in facts if fact[0] != "measured by"]
    parts = training.get("recordings", {})
    splits = ReportTable(
        "Splits",
        ["split", "recordings", "seconds"],
        [
            [name, str(len(names)), f"{training.get('seconds', {}).get(name, 0):g}"]
            for name, names in parts.items()
        ],
    )
    return {
        "name": manifest.name,
        "species": manifest.species,
        "licence": manifest.licence,
        "attribution": manifest.attribution,
        "facts": [(key, value) for key, value in facts if value not in (None, "")],
        "splits": splits if parts else None,
        "recordings": list(parts.items()),
        "notes": training.get("notes", []),
    }
