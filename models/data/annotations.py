"""Annotations of a dataset's recordings, found in its tables or annotation files."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import is_silence, may_be_silence
from neurovocal.models.data.files_table import FILES
from neurovocal.models.data.formats.column_tables import read_annotations_table
from neurovocal.models.data.formats.registry import AnnotationFormat, find_format
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    shown,
    where,
)
from neurovocal.models.data.formats.text_table import own_table
from neurovocal.models.data.recording_folder import NoRecordingError, RecordingFolder

ANNOTATIONS = "annotations.csv"
_PASSED_OVER = "files that are not of the format {} are passed over"


@dataclass(frozen=True, slots=True)
class Annotation:
    """A labelled segment of a recording, in seconds from the start of the file.

    ``where`` is the file that says so, and the line.
    """

    onset_s: float
    offset_s: float
    unit: str
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FoundRow:
    """Row of an annotation file, and the file."""

    row: SegmentRow
    table: Path

    @property
    def where(self) -> str:
        """The file, and the line in it."""
        return where(self.table, self.row.line)


def read_annotations(
    files: RecordingFolder,
    annotation_format: str | None,
    choice: AnnotationChoice,
    findings: Findings,
) -> dict[str, list[FoundRow]]:
    """Read the annotations of all recordings of a folder.

    Parameters
    ----------
    files : RecordingFolder
        The dataset's files.
    annotation_format : str, optional
        Name of the format; None reads ``annotations.csv``.
    choice : AnnotationChoice
        Column, tier and channels that are meant.
    findings : Findings
        Receives the mistakes, and what the user is told.

    Returns
    -------
    dict
        Rows by recording, relative to the folder; an empty list for a recording
        whose table says that nothing was sung. Labels that mean silence are left out.

    Raises
    ------
    ConfigError
        The format is unknown, an option does not go with it, or there is no file.
    """
    if annotation_format is None:
        found = _read_annotations_csv(files, choice, findings)
    else:
        form = find_format(annotation_format)
        _refuse_options(form, choice)
        found = _read_files(files, form, choice, findings)
    return {
        file: [entry for entry in rows if not _means_silence(entry.row, findings)]
        for file, rows in found.items()
    }


def _means_silence(row: SegmentRow, findings: Findings) -> bool:
    if may_be_silence(row.label):
        findings.tell(
            "labels that may mean background are units (write sil if they do)",
            shown(row.label),
        )
    if not is_silence(row.label):
        return False
    findings.tell("labels that mean silence are no units", shown(row.label))
    return True


def _refuse_options(form: AnnotationFormat, choice: AnnotationChoice) -> None:
    """Raise ConfigError for an option that means nothing for a format."""
    if choice.label_column and "label_column" not in form.options:
        raise ConfigError(
            f"--label-column: files of the format {form.name} have no named columns"
        )
    if choice.tier and "tier" not in form.options:
        raise ConfigError(f"--tier: files of the format {form.name} have no tiers")


def _read_annotations_csv(
    files: RecordingFolder, choice: AnnotationChoice, findings: Findings
) -> dict[str, list[FoundRow]]:
    path = own_table(files.folder, ANNOTATIONS)
    if choice.tier:
        raise ConfigError(
            f"--tier: {ANNOTATIONS} has no tiers: name the format with --format"
        )
    if not path.is_file():
        raise ConfigError(
            f"dataset '{files.folder}' has no {ANNOTATIONS} with columns "
            "file,onset_s,offset_s,label; name another format with --format"
        )
    try:
        rows = read_annotations_table(path, choice, findings)
    except (ConfigError, NotOfFormatError) as error:
        _add_problems(path, error, findings)
        return {}
    return _by_recording(files, path, rows, findings, elsewhere=False)


def _read_files(
    files: RecordingFolder,
    form: AnnotationFormat,
    choice: AnnotationChoice,
    findings: Findings,
) -> dict[str, list[FoundRow]]:
    """Read all files of a format, and give their rows to recordings."""
    reserved = {FILES, ANNOTATIONS} if form.name != "generic-seq" else {FILES}
    names = [
        name
        for name in files.others
        if name.casefold().endswith(form.suffixes) and name.casefold() not in reserved
    ]
    found: defaultdict[str, list[FoundRow]] = defaultdict(list)
    unread: dict[Path, str] = {}
    nameless: list[tuple[str, list[SegmentRow], str, Findings]] = []
    for name in names:
        path = files.folder / name
        belongs: tuple[str, int | None] | None = None
        why_not = ""
        try:
            belongs = files.annotated_by(name, _suffix(name, form))
        except NoRecordingError as error:
            why_not = str(error)
        own_findings = Findings()
        try:
            rows = form.read(path, choice, own_findings)
        except NotOfFormatError as error:
            unread[path] = str(error)
            if belongs is None:
                findings.tell(_PASSED_OVER.format(form.name), shown(name))
            elif "another tier" not in str(error):
                findings.refuse(path, 0, str(error))
            continue
        except ConfigError as error:
            _add_problems(path, error, findings)
            continue
        if belongs is not None or form.has_heading:
            findings.add(own_findings)
            own_findings = Findings()
        own = [row for row in rows if not row.recording]
        named = [row for row in rows if row.recording]
        for file, entries in _by_recording(
            files, path, named, findings, elsewhere=True, namesake=belongs
        ).items():
            found[file] += entries
        if named and not own:
            continue
        if belongs is None and not rows and not own_findings.problems:
            findings.tell("empty tables of no recording are passed over", shown(name))
            continue
        if belongs is None:
            nameless.append((name, own, why_not, own_findings))
            continue
        file, channel = belongs
        found[file] += [_in_channel(FoundRow(row, path), channel) for row in own]
    passed_over = Findings()
    for name, own, why_not, own_findings in nameless:
        path = files.folder / name
        left = set(found) if len(nameless) == 1 else set(files.recordings)
        only = files.only_besides(left, name, _suffix(name, form))
        if only is None and own_findings.problems:
            passed_over.add(own_findings)
            findings.tell(_PASSED_OVER.format(form.name), shown(name))
            continue
        findings.add(own_findings)
        if only is None:
            findings.refuse(path, 0, why_not)
            continue
        findings.tell(
            "tables that name no recording are given to the only one without a table",
            f"{shown(name)} to {shown(only)}",
        )
        found[only] += [FoundRow(row, path) for row in own]
    if not names:
        raise ConfigError(
            f"dataset '{files.folder}' has no {' or '.join(form.suffixes)} file "
            f"(format {form.name})"
        )
    if not found:
        findings.add(passed_over)
    if len(unread) == len(names) and not findings.problems:
        for path, reason in unread.items():
            findings.refuse(path, 0, reason)
    return found


def _suffix(name: str, form: AnnotationFormat) -> str:
    folded = name.casefold()
    return max((s for s in form.suffixes if folded.endswith(s)), key=len)


def _by_recording(
    files: RecordingFolder,
    path: Path,
    rows: Sequence[SegmentRow],
    findings: Findings,
    *,
    elsewhere: bool,
    namesake: tuple[str, int | None] | None = None,
) -> dict[str, list[FoundRow]]:
    """Give the rows of a table to the recordings that they name.

    A recording of the same name as the table is the one that it names, if the table
    names only one and that is not there: files are renamed together.
    """
    found: defaultdict[str, list[FoundRow]] = defaultdict(list)
    lines: dict[str, int] = {}
    for row in rows:
        lines.setdefault(row.recording, row.line)
    places: dict[str, tuple[str, int | None]] = {}
    base = PurePosixPath(path.relative_to(files.folder).as_posix()).parent
    for name, line in lines.items():
        try:
            places[name] = _named(files, base, name, elsewhere)
        except NoRecordingError as error:
            if namesake is not None and len(lines) == 1:
                places[name] = namesake
            else:
                findings.refuse(path, line, str(error))
    for row in rows:
        if row.recording in places:
            file, channel = places[row.recording]
            found[file].append(_in_channel(FoundRow(row, path), channel))
    return found


def _named(
    files: RecordingFolder, base: PurePosixPath, name: str, elsewhere: bool
) -> tuple[str, int | None]:
    """Find a recording by its name; beside the table first if it is another's path."""
    if elsewhere and str(base) != ".":
        try:
            return files.named(str(base / name.strip().replace("\\", "/")))
        except NoRecordingError:
            pass
    return files.named(name, elsewhere=elsewhere)


def _in_channel(entry: FoundRow, channel: int | None) -> FoundRow:
    """Return a row of a channel that the name of its recording tells."""
    if channel is None or entry.row.channel is not None:
        return entry
    row = entry.row
    return FoundRow(
        SegmentRow(
            row.onset,
            row.offset,
            row.label,
            row.line,
            row.recording,
            channel,
            row.in_samples,
        ),
        entry.table,
    )


def _add_problems(
    path: Path, error: ConfigError | NotOfFormatError, findings: Findings
) -> None:
    if isinstance(error, ConfigError):
        findings.problems += error.problems
    else:
        findings.refuse(path, 0, str(error))


def truncate_problems(problems: list[str], limit: int = 20) -> list[str]:
    """Return the first `limit` problems and a line with the number of the others."""
    more = len(problems) - limit
    return [*problems[:limit], f"and {more} more like these"] if more > 0 else problems
