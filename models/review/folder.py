"""Segments of a folder under review: a dataset, a labelled folder, or clips."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.support.names import missing_folder
from neurovocal.engine.support.text import plain_name
from neurovocal.models.data.annotations import ANNOTATIONS, truncate_problems
from neurovocal.models.data.datasets import survey_dataset
from neurovocal.models.data.files_table import is_files_table
from neurovocal.models.data.formats.column_tables import read_annotations_table
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    shown,
    where,
)
from neurovocal.models.data.formats.text_table import (
    HeadedTable,
    own_table,
    read_lines,
)
from neurovocal.models.data.recording_folder import NoRecordingError, RecordingFolder
from neurovocal.models.data.sound_files import read_header
from neurovocal.plugins.review.places import Clip, read_clips
from neurovocal.plugins.review.segments import (
    AudioPiece,
    Collection,
    Recording,
    Segment,
)
from neurovocal.plugins.sources.audio_files.file import RecordingHeader

_HOPS_A_SECOND = 1000
_MOST_TOLD = 10
# Ends of names that belong to one format only.
_FORMATS = {".textgrid": "textgrid", ".not.mat": "notmat", ".phn": "timit"}


def read_folder(
    folder: Path,
    annotation_format: str | None = None,
    choice: AnnotationChoice | None = None,
    table: Path | None = None,
) -> Collection:
    """Read what there is to review in a folder.

    That is a dataset with ``annotations.csv`` or files of an annotation format, what
    ``label`` or ``detect`` wrote about the folder's recordings, clips of the ``clips``
    sink, or recordings alone.

    Parameters
    ----------
    folder : Path
        The folder.
    annotation_format : str, optional
        Name of the format of its annotation files; by default it is seen from them.
    choice : AnnotationChoice, optional
        Which column, tier and channels are meant.
    table : Path, optional
        Table of ``label`` or ``detect`` to read.

    Raises
    ------
    ConfigError
        There is no such folder, no recording in it, or a table cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"folder '{folder}' {missing_folder(folder)}")
    choice = choice or AnnotationChoice()
    if table is None and annotation_format is None:
        clips = list(read_clips(folder))
        if clips:
            return _collection_of_clips(folder, clips)
    reader = _FolderReader(folder, choice)
    if table is not None:
        reader.add_table(table)
    elif annotation_format is not None:
        reader.add_annotations(annotation_format)
    elif own_table(folder, ANNOTATIONS).is_file():
        reader.add_annotations(None)
    else:
        reader.add_what_is_there()
    return reader.collection()


class _FolderReader:
    """Gathers recordings and segments of a folder.

    Parameters
    ----------
    folder : Path
        The folder.
    choice : AnnotationChoice
        Which column, tier and channels are meant.
    """

    def __init__(self, folder: Path, choice: AnnotationChoice) -> None:
        self._folder = folder
        self._choice = choice
        self._files = RecordingFolder(folder)
        elsewhere = own_table(folder, ANNOTATIONS).is_file()
        if not self._files.recordings and not elsewhere:
            raise ConfigError(
                f"folder '{folder}' holds no recording: name the folder of the audio "
                "files, or a journal"
            )
        self._headers: dict[str, RecordingHeader | None] = {}
        self._recordings: dict[str, Recording] = {}
        self._segments: list[Segment] = []
        self._counts: Counter[str] = Counter()
        self._notes: list[str] = []
        self._touched: set[str] = set()

    def add_annotations(self, form: str | None) -> None:
        """Add annotations.csv, or all files of an annotation format."""
        dataset, problems = survey_dataset(self._folder, form, self._choice)
        self._notes += [
            note
            for note in dataset.notes
            if "recordings without annotations" not in note
        ]
        # A faulty table is mended here: training refuses it until then.
        self._notes += truncate_problems(problems)[:_MOST_TOLD]
        for each in dataset.recordings:
            inside = each.path.is_relative_to(self._folder)
            path = each.path.relative_to(self._folder) if inside else each.path
            file = path.as_posix()
            key = self._add_recording(file, each.channel, each.file)
            for a in each.annotations:
                self._add_segment(key, a.onset_s, a.offset_s, a.unit)

    def add_table(self, path: Path) -> None:
        """Add a table of ``label`` or ``detect``.

        Raises
        ------
        ConfigError
            It cannot be read, or names no recording of the folder.
        """
        findings = Findings()
        choice = AnnotationChoice(self._choice.label_column, needs_labels=False)
        try:
            rows = read_annotations_table(path, choice, findings)
            values = _values(path)
        except NotOfFormatError as error:
            raise ConfigError(
                f"{where(path)}: {error}: tables of `label` and `detect` are read; "
                "name another format with --annotations"
            ) from error
        if findings.problems:
            raise ConfigError(truncate_problems(findings.problems))
        self._notes += list(findings.notes())
        missing: dict[str, str] = {}
        for row in rows:
            try:
                file, channel = self._files.named(row.recording, elsewhere=True)
            except NoRecordingError as error:
                missing[row.recording] = f"{where(path, row.line)}: {error}"
                continue
            self._add_row(file, channel or row.channel, row, values)
        if missing and not self._recordings:
            raise ConfigError(truncate_problems(list(missing.values())))
        self._notes += list(missing.values())[:_MOST_TOLD]

    def add_what_is_there(self) -> None:
        """Add the table or the annotation files that the folder seems to have.

        Raises
        ------
        ConfigError
            It has several tables.
        """
        tables = [name for name in self._files.others if self._is_table(name)]
        if len(tables) > 1:
            listed = ", ".join(map(shown, tables[:5]))
            raise ConfigError(
                f"folder '{self._folder}' has several tables ({listed}): choose one "
                "with --labels"
            )
        if tables:
            self._notes.append(f"segments are those of '{plain_name(tables[0])}'")
            self.add_table(self._folder / tables[0])
            return
        form = self._guessed_format()
        if form is not None:
            self._notes.append(
                f"annotations are read as {form} (--annotations names another format)"
            )
            self.add_annotations(form)
            return
        self._notes.append(
            "the folder has no table of segments: mark them by dragging, or let "
            f"`neurovocal detect {self._folder} --out {self._folder}/segments.csv` "
            "find them"
        )

    def collection(self) -> Collection:
        """Return what was found, and the recordings without any segment."""
        for file in self._files.recordings:
            if file not in self._touched:
                with suppress(AudioFileError):
                    self._add_recording(file, 1, file)
        unread = [name for name, header in self._headers.items() if header is None]
        if unread:
            more = f" and {len(unread) - 3} more" if unread[3:] else ""
            listed = ", ".join(map(shown, unread[:3]))
            self._notes.append(f"recordings that cannot be read: {listed}{more}")
        ordered = dict(sorted(self._recordings.items()))
        found = Collection(
            self._folder.resolve().name, ordered, self._segments, self._notes
        )
        found.require_content()
        return found

    def _is_table(self, name: str) -> bool:
        """Return whether a file is a table of ``label`` or ``detect``."""
        if not name.casefold().endswith(".csv") or is_files_table(name):
            return False
        with suppress(OSError, ConfigError, NotOfFormatError):
            first = next(iter(read_lines(self._folder / name)), "")
            heading = {cell.strip().casefold() for cell in first.split(",")}
            return {"file", "onset_s", "offset_s"} <= heading
        return False

    def _guessed_format(self) -> str | None:
        names = [name.casefold() for name in self._files.others]
        for suffix, form in _FORMATS.items():
            if any(name.endswith(suffix) for name in names):
                return form
        for name in self._files.others:
            if not name.casefold().endswith(".txt"):
                continue
            with suppress(OSError, ConfigError, NoRecordingError):
                first = next(iter(read_lines(self._folder / name)), "")
                if "Begin Time (s)" in first:
                    return "raven"
                self._files.annotated_by(name, ".txt")
                if len(first.split("\t")) in (2, 3):
                    return "audacity"
        return None

    def _add_row(
        self,
        file: str,
        channel: int | None,
        row: SegmentRow,
        values: dict[int, tuple[float | None, float | None]],
    ) -> None:
        name = file if channel is None else f"{file}.ch{channel}"
        try:
            key = self._add_recording(file, channel or 1, name)
        except AudioFileError:
            return
        posterior, score = values.get(row.line, (None, None))
        self._add_segment(key, row.onset, row.offset, row.label, posterior, score)

    def _add_recording(self, file: str, channel: int, name: str) -> str:
        """Add a recording, unless it is there; return its key."""
        self._touched.add(file)
        if name in self._recordings:
            return name
        header = self._header(file)
        rate = header.sample_rate
        self._recordings[name] = Recording(
            name,
            plain_name(name),
            rate,
            audio_rate=rate,
            hop_length=max(1, rate // _HOPS_A_SECOND),
            n_samples=header.n_samples,
            utc_ns=header.start.utc_ns,
            audio=(AudioPiece(str(header.path), 0, 0, header.n_samples, (channel,)),),
        )
        return name

    def _header(self, file: str) -> RecordingHeader:
        if file not in self._headers:
            self._headers[file] = None
            self._headers[file] = read_header(self._folder / file)
        header = self._headers[file]
        if header is None:
            raise AudioFileError(f"'{file}' cannot be read")
        return header

    def _add_segment(
        self,
        key: str,
        onset_s: float,
        offset_s: float,
        unit: str,
        posterior: float | None = None,
        score: float | None = None,
    ) -> None:
        recording = self._recordings[key]
        rate = recording.sample_rate
        onset, offset = round(onset_s * rate), round(offset_s * rate)
        if recording.n_samples is not None:
            offset = min(offset, recording.n_samples)
        if offset <= onset or onset < 0:
            return  # told as a problem of the table
        place = f"{key}|{onset}|{offset}"
        self._counts[place] += 1
        again = f"~{self._counts[place]}" if self._counts[place] > 1 else ""
        self._segments.append(
            Segment(
                place + again,
                key,
                onset,
                offset,
                unit,
                posterior=posterior,
                score=score,
            )
        )


def _values(path: Path) -> dict[int, tuple[float | None, float | None]]:
    """Return posterior and score of the rows of a table, by line."""
    table = HeadedTable.read(path, Findings(), ",")
    columns = table.column("posterior"), table.column("score")

    def number(cells: list[str], at: int | None) -> float | None:
        if at is None:
            return None
        try:
            value = float(cells[at])
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    return {
        row.line: (number(row.cells, columns[0]), number(row.cells, columns[1]))
        for row in table.rows
    }


def _collection_of_clips(folder: Path, clips: Iterable[Clip]) -> Collection:
    """Return clips as recordings, with the segments of their sidecars."""
    recordings: dict[str, Recording] = {}
    segments: list[Segment] = []
    counts: defaultdict[str, int] = defaultdict(int)
    for clip in clips:
        name = clip.path.relative_to(folder).as_posix()
        n_samples = clip.stop - clip.start
        rate = clip.sample_rate
        recordings[name] = Recording(
            name,
            f"{clip.stream} {clip.path.stem.partition('_')[0]}",
            rate,
            audio_rate=rate,
            hop_length=max(1, rate // _HOPS_A_SECOND),
            n_samples=n_samples,
            utc_ns=clip.utc_ns,
            run=clip.run,
            audio=(AudioPiece(str(clip.path), 0, 0, n_samples),),
        )
        for each in clip.segments:
            onset = max(0, round(each.onset_s * rate))
            offset = min(n_samples, round(each.offset_s * rate))
            if offset <= onset:
                continue
            key = f"{name}/s{each.segment}"
            counts[key] += 1
            label = _newest_label(each.labels)
            surprise = each.surprise or {}
            segments.append(
                Segment(
                    key if counts[key] == 1 else f"{key}~{counts[key]}",
                    name,
                    onset,
                    offset,
                    str(label.get("unit", "")),
                    posterior=label.get("posterior"),
                    surprise=surprise.get("mean"),
                )
            )
    found = Collection(folder.resolve().name, recordings, segments)
    found.require_content()
    return found


def _newest_label(labels: list[dict[str, object]]) -> dict[str, Any]:
    """Return the final label of a segment, or else its newest one."""
    final = [each for each in labels if each.get("status") == "final"]
    return (final or labels or [{}])[-1]
