"""Export of reviewed stretches as a dataset: audio files and tables of labels."""

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal, TypeAlias

import numpy as np

from neurovocal.engine import ConfigError, Float32, StageError
from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.support.outputs import folder_problem
from neurovocal.plugins.review.audio import RecordingAudio
from neurovocal.plugins.review.segments import UNKNOWN, Recording, Segment
from neurovocal.plugins.review.session import ReviewSession
from neurovocal.plugins.storage.folder import stream_file_name

Format: TypeAlias = Literal[
    "csv", "raven", "audacity", "simple-seq", "aud-seq", "generic-seq"
]

CONTEXT_S = 2.0
# Around a segment that nobody has reviewed: its edges may be wrong.
_MARGIN_S = 0.02
_SHORTEST_S = 0.1
_PARTIAL = ".neurovocal-export-"
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part ``[start, stop)`` of a recording in which every segment is reviewed."""

    recording: Recording
    start: int
    stop: int
    segments: tuple[Segment, ...]


@dataclass
class Exported:
    """What an export has written, and what it has left out."""

    folder: Path
    files: int = 0
    segments: int = 0
    seconds: float = 0.0
    units: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def stretches(
    recording: Recording,
    segments: Iterable[Segment],
    context_s: float = CONTEXT_S,
    *,
    everything: bool = False,
) -> list[Stretch]:
    """Return the parts of a recording that may be learnt from.

    A training takes what is not labelled for silence. So a part holds no segment and no
    near miss that nobody has reviewed, no missing sample, and no sound farther than
    `context_s` from a reviewed segment, which nobody may have looked at.

    Parameters
    ----------
    recording : Recording
        The recording.
    segments : iterable of Segment
        All of it, deleted ones as well: a deleted one is reviewed silence.
    context_s : float
        Seconds before and after a reviewed segment.
    everything : bool
        Whether the whole recording is one part, with all segments as they are.
    """
    own = sorted(segments, key=lambda each: (each.onset, each.offset))
    labelled = [each for each in own if each.alive and each.kind == "segment"]
    rate = recording.sample_rate
    end = recording.n_samples
    if end is None:
        end = max((each.offset for each in own), default=0) + round(context_s * rate)
    margin = round(_MARGIN_S * rate)
    blocked = [(start, stop) for start, stop in recording.holes]
    if everything:
        spans = [(0, end)]
        kept = labelled
    else:
        blocked += [
            (each.onset - margin, each.offset + margin)
            for each in own
            if each.alive and not each.reviewed
        ]
        reach = round(context_s * rate)
        spans = _joined(
            [
                (max(0, each.onset - reach), min(end, each.offset + reach))
                for each in own
                if each.reviewed
            ]
        )
        kept = [each for each in labelled if each.reviewed]
    judged = [each for each in own if each.reviewed or everything]
    found = []
    for start, stop in _without(spans, blocked):
        if not any(start <= each.onset and each.offset <= stop for each in judged):
            continue  # what lies behind a segment that nobody has reviewed
        inside = tuple(e for e in kept if e.onset >= start and e.offset <= stop)
        # A segment that is only partly in it would be half a negative.
        cut = [e for e in kept if e not in inside and e.onset < stop < e.offset]
        stop = min([stop, *(e.onset for e in cut)])
        cut = [e for e in kept if e not in inside and e.onset < start < e.offset]
        start = max([start, *(e.offset for e in cut)])
        if stop - start >= _SHORTEST_S * rate:
            found.append(Stretch(recording, start, stop, inside))
    return found


def export_dataset(
    session: ReviewSession,
    audio: RecordingAudio,
    folder: Path,
    form: Format = "csv",
    context_s: float = CONTEXT_S,
    *,
    everything: bool = False,
    watch: Callable[[float], None] = lambda share: None,
) -> Exported:
    """Write audio files and tables, which ``neurovocal train`` reads.

    Parameters
    ----------
    session : ReviewSession
        The review.
    audio : RecordingAudio
        Reads the recordings.
    folder : Path
        Made; it must not exist, or be empty.
    form : str
        Of the tables.
    context_s, everything
        As in `stretches`.
    watch : callable
        Called with the completed share.

    Raises
    ------
    ConfigError
        Nothing is reviewed, no sound is there, segments overlap, or the folder cannot
        be written.
    StageError
        The disk does not take the files: nothing is left of them.
    """
    _require_free(folder)
    result = Exported(folder)
    parts = _parts(session, audio, context_s, everything, result)
    if not any(part.segments for part in parts):
        reason = f" ({result.notes[0]})" if result.notes else ""
        what = "there is no segment" if everything else "no segment is reviewed yet"
        raise ConfigError(f"nothing was exported: {what}{reason}")
    _require_apart(parts)
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=_PARTIAL, dir=folder.parent))
        table = _Tables(partial, form)
        for number, part in enumerate(parts):
            name = _name(part, {each.name for each in table.files})
            samples = _samples(audio, part)
            rate = part.recording.audio_rate
            _write_audio(partial / name, samples, rate)
            table.add(_File(name, rate, len(samples), part))
            result.seconds += len(samples) / rate
            watch((number + 1) / len(parts))
        table.write()
        os.chmod(partial, 0o755)
        if folder.exists():
            folder.rmdir()  # empty
        partial.rename(folder)
    except OSError as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        raise StageError(
            f"'{folder}' cannot be written: {error.strerror or error}: nothing of it "
            "was kept"
        ) from error
    except BaseException:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    result.files = len(parts)
    for part in parts:
        for each in part.segments:
            unit = each.unit or UNKNOWN
            result.units[unit] = result.units.get(unit, 0) + 1
            result.segments += 1
    return result


def _parts(
    session: ReviewSession,
    audio: RecordingAudio,
    context_s: float,
    everything: bool,
    result: Exported,
) -> list[Stretch]:
    """Return all stretches that have sound; what is left out is noted."""
    by_recording: dict[str, list[Segment]] = {}
    for each in session.segments():
        by_recording.setdefault(each.recording, []).append(each)
    parts, silent, without = [], 0, 0
    for key, own in by_recording.items():
        recording = session.collection.recordings.get(key)
        if recording is None:
            without += sum(each.reviewed for each in own)
            continue
        for part in stretches(recording, own, context_s, everything=everything):
            if recording.problem:
                silent += len(part.segments)
            elif covered := _covered(audio, part):
                parts += covered
            else:
                silent += len(part.segments)
    if silent:
        result.notes.append(f"{silent} segments have no sound and are left out")
    if without:
        result.notes.append(
            f"{without} reviewed segments are of recordings that are not there any more"
        )
    return parts


def _covered(audio: RecordingAudio, part: Stretch) -> list[Stretch]:
    """Return the parts of a stretch of which the audio files hold all samples.

    Clips are short: between two of them there is no sound.
    """
    recording = part.recording
    if audio.covered(recording, part.start, part.stop):
        return [part]
    rates = recording.audio_rate, recording.sample_rate
    spans = _joined(
        [
            (
                max(part.start, scaled(piece.start, *rates)),
                part.stop
                if piece.n_samples is None
                else min(part.stop, scaled(piece.start + piece.n_samples, *rates)),
            )
            for piece in recording.audio
        ]
    )
    found = []
    for start, stop in spans:
        inside = tuple(
            each
            for each in part.segments
            if each.onset >= start and each.offset <= stop
        )
        cut = any(
            each.onset < edge < each.offset
            for each in part.segments
            for edge in (start, stop)
        )
        if inside and not cut and audio.covered(recording, start, stop):
            found.append(Stretch(recording, start, stop, inside))
    return found


def _require_free(folder: Path) -> None:
    """Raise ConfigError if a folder is there that holds something."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"'{folder}' is a file: name a folder to export to")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"folder '{folder}' is not empty: export to another one")
    if (problem := folder_problem(folder.parent)) is not None:
        raise ConfigError(f"'{folder}' cannot be written: {problem}")


def _require_apart(parts: Sequence[Stretch]) -> None:
    """Raise ConfigError if segments overlap, which no training takes."""
    problems = []
    for part in parts:
        rate = part.recording.sample_rate
        for one, other in zip(part.segments, part.segments[1:], strict=False):
            if other.onset < one.offset:
                problems.append(
                    f"{part.recording.name}: '{one.unit}' and '{other.unit}' overlap "
                    f"at {other.onset / rate:.3f} s: move an edge, or delete one"
                )
    if problems:
        raise ConfigError(problems[:20])


def _samples(audio: RecordingAudio, part: Stretch) -> Float32:
    first, last = audio.range_of(part.recording, part.start, part.stop)
    return audio.read(part.recording, first, last)


def _name(part: Stretch, used: set[str]) -> str:
    """Return the name of a stretch's audio file: the recording's, and its start."""
    rate = part.recording.sample_rate
    stem = Path(part.recording.name.replace("/", "_")).stem or "recording"
    if part.recording.run:
        stem = f"{stem}_{part.recording.run}"
    stem = stream_file_name(stem).replace(" ", "_").replace("%", "_")
    whole = part.start == 0 and part.stop == part.recording.n_samples
    name = stem if whole else f"{stem}_{part.start / rate:09.3f}s"
    number, free = 2, f"{name}.wav"
    while free in used:
        free, number = f"{name}-{number}.wav", number + 1
    return free


def _write_audio(path: Path, samples: Float32, rate: int) -> None:
    """Write a WAV file: 16 bits where these hold every sample, else float32."""
    import soundfile

    steps = samples * 32768.0
    exact = bool(np.all(steps == np.rint(steps)) and np.all(np.abs(steps) <= 32767))
    content = io.BytesIO()
    subtype = "PCM_16" if exact else "FLOAT"
    soundfile.write(content, samples, rate, format="WAV", subtype=subtype)
    with path.open("wb") as file:
        file.write(content.getvalue())


@dataclass(frozen=True, slots=True)
class _File:
    """An audio file of the export, and the stretch that it holds."""

    name: str
    rate: int
    n_samples: int
    part: Stretch

    def rows(self) -> list[tuple[float, float, str]]:
        """Return onset and offset in seconds from the start of the file, and unit."""
        rate, start = self.part.recording.sample_rate, self.part.start
        length_s = self.n_samples / self.rate
        return [
            (
                max(0.0, (each.onset - start) / rate),
                min(length_s, (each.offset - start) / rate),
                each.unit or UNKNOWN,
            )
            for each in self.part.segments
        ]


class _Tables:
    """Tables of labels beside the audio files of an export."""

    def __init__(self, folder: Path, form: Format) -> None:
        self._folder = folder
        self._form = form
        self.files: list[_File] = []

    def add(self, file: _File) -> None:
        """Add an audio file with its labels."""
        self.files.append(file)

    def write(self) -> None:
        """Write the tables."""
        match self._form:
            case "csv":
                self._write_csv(
                    "annotations.csv",
                    ("file", "onset_s", "offset_s", "label"),
                    (
                        (file.name, _seconds(onset), _seconds(offset), unit)
                        for file in self.files
                        for onset, offset, unit in file.rows()
                    ),
                )
                # Stretches without a label are told from forgotten ones.
                self._write_csv(
                    "files.csv",
                    ("file", "recording", "start_s"),
                    (
                        (
                            file.name,
                            file.part.recording.name,
                            _seconds(file.part.start / file.part.recording.sample_rate),
                        )
                        for file in self.files
                    ),
                )
            case "generic-seq":
                self._write_csv("annotations.csv", _GENERIC, self._generic_rows())
            case "simple-seq":
                for file in self.files:
                    rows = (
                        (_seconds(onset), _seconds(offset), unit)
                        for onset, offset, unit in file.rows()
                    )
                    heading = ("onset_s", "offset_s", "label")
                    self._write_csv(f"{file.name[:-4]}.csv", heading, rows)
            case "raven":
                for file in self.files:
                    self._write_raven(file)
            case "audacity" | "aud-seq":
                for file in self.files:
                    lines = "".join(
                        f"{_seconds(onset)}\t{_seconds(offset)}\t{unit}\n"
                        for onset, offset, unit in file.rows()
                    )
                    self._write(f"{file.name[:-4]}.txt", lines)

    def _generic_rows(self) -> Iterable[tuple[object, ...]]:
        for number, file in enumerate(self.files):
            for onset, offset, unit in file.rows():
                yield (
                    unit,
                    _seconds(onset),
                    _seconds(offset),
                    round(onset * file.rate),
                    round(offset * file.rate),
                    file.name,
                    "annotations.csv",
                    0,
                    number,
                )

    def _write_raven(self, file: _File) -> None:
        lines = ["\t".join(_RAVEN)]
        for number, (onset, offset, unit) in enumerate(file.rows(), 1):
            cells = (str(number), "Spectrogram 1", "1", _seconds(onset))
            high = f"{file.rate / 2:.1f}"
            lines.append("\t".join((*cells, _seconds(offset), "0.0", high, unit)))
        name = f"{file.name[:-4]}.Table.1.selections.txt"
        self._write(name, "\n".join(lines) + "\n")

    def _write_csv(
        self, name: str, heading: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(heading)
        table.writerows(rows)
        self._write(name, text.getvalue())

    def _write(self, name: str, text: str) -> None:
        with (self._folder / name).open("w", encoding="utf-8", newline="") as file:
            file.write(text)


_RAVEN = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Annotation",
)
_GENERIC = (
    "label",
    "onset_s",
    "offset_s",
    "onset_sample",
    "offset_sample",
    "notated_path",
    "annot_path",
    "sequence",
    "annotation",
)


def _seconds(value: float) -> str:
    return f"{value:.{_DIGITS}f}"


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def _without(
    spans: Iterable[tuple[int, int]], blocked: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the parts of spans that no blocked span touches; an empty one cuts."""
    cuts = sorted(blocked)
    found = []
    for start, stop in spans:
        for low, high in cuts:
            if high < start or low > stop:
                continue
            if low > start:
                found.append((start, min(low, stop)))
            start = max(start, high)
        if start < stop:
            found.append((start, stop))
    return [(start, stop) for start, stop in found if start < stop]
