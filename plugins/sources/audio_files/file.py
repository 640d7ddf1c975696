"""Audio files: find them by name, read the header, read the samples."""

import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from difflib import get_close_matches
from glob import glob, has_magic
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine import AudioFileError, BuildContext, Float32
from neurovocal.engine.support.names import resolved
from neurovocal.engine.support.text import plain_name
from neurovocal.plugins.sources.audio_files.container import Container, examine
from neurovocal.plugins.sources.audio_files.start_time import (
    StartTime,
    expansion,
    find_start,
)

SUFFIXES = frozenset(
    [
        *[".aif", ".aifc", ".aiff", ".au", ".avr", ".caf", ".flac", ".htk", ".iff"],
        *[".ircam", ".mp3", ".nist", ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64"],
        *[".sd2", ".sds", ".sf", ".snd", ".sph", ".svx", ".voc", ".w64", ".wav"],
        *[".wave", ".xi"],
    ]
)
_LOOKED_AT = 4096  # bytes
_UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
_TEXT = bytes({*range(32, 127), *b"\t\n\r"})
# libsndfile's value for an unknown length is greater.
_UNKNOWN_SAMPLES = 1 << 62
MIN_RATE, MAX_RATE = 100, 10_000_000


@dataclass(frozen=True, slots=True)
class RecordingHeader:
    """Header of a recording.

    ``n_samples`` is None if the format does not state it. ``start`` is the time of the
    first sample, if it is known. ``container`` says whether the header agrees with the
    bytes that there are. ``expansion`` says how many times slower than recorded the
    file plays, if it does; ``sample_rate`` is that of the recording.
    """

    path: Path
    sample_rate: int
    channels: int
    n_samples: int | None
    start: StartTime
    container: Container
    expansion: float | None = None

    @property
    def duration_s(self) -> float | None:
        """Length of the recording in seconds, if the format states it."""
        return None if self.n_samples is None else self.n_samples / self.sample_rate

    @property
    def truncated(self) -> bool:
        """True if the file has fewer samples than the header states."""
        return self.container.state == "cut"


def channel_problem(header: RecordingHeader, numbers: Sequence[int]) -> str | None:
    """Return a sentence if a recording lacks one of these channels, else None."""
    highest = max(numbers)
    if highest <= header.channels:
        return None
    count = f"{header.channels} channel" + "s" * (header.channels > 1)
    return f"'{header.path}' has {count}, there is no channel {highest}"


def find_recordings(name: str, context: BuildContext, recursive: bool) -> list[Path]:
    """Find the recordings that a file, a folder or a pattern names.

    Parameters
    ----------
    name : str
        Name, as the user wrote it.
    context : BuildContext
        Gives the folder that the name is relative to.
    recursive : bool
        True to search folders inside a folder, too.

    Returns
    -------
    list of Path
        In natural order: ``take2`` before ``take10``.

    Raises
    ------
    AudioFileError
        There is no such recording.
    """
    if not name.strip():
        raise AudioFileError(
            "an empty name names no recording (a variable that is not set?)"
        )
    try:
        return _find(name, context.path(name), context, recursive)
    except OSError as error:
        raise AudioFileError(f"'{name}' cannot be used: {error.strerror}") from error


def _find(name: str, path: Path, context: BuildContext, recursive: bool) -> list[Path]:
    if path.is_dir():
        found = path.rglob("*") if recursive else path.iterdir()
        files = [p for p in found if _is_recording(p)]
        if not files:
            hint = "" if recursive else " (folders inside it need recursive: true)"
            raise AudioFileError(f"folder '{name}' holds no recording{hint}")
        return sorted(files, key=natural_key)
    if not path.exists() and has_magic(name):
        matches = _matches(path) or _matches(context.base / path)
        files = [p for p in matches if _is_recording(p)]
        if not files:
            raise AudioFileError(f"no recording matches '{name}'")
        return sorted(files, key=natural_key)
    if (problem := _link_problem(path)) is not None:
        raise AudioFileError(problem)
    if not path.exists():
        raise AudioFileError(f"recording '{name}' does not exist{_similar(path)}")
    if not path.is_file():
        raise AudioFileError(
            f"'{name}' is neither a file nor a folder: read pipes with the pipe source"
        )
    return [path]


def _link_problem(path: Path) -> str | None:
    """Return a sentence if a path is a link that leads to no file, such as itself."""
    if not path.is_symlink() or path.exists():
        return None
    return f"'{path}' is a link that leads to no file: '{path.readlink()}'"


def _matches(pattern: Path) -> list[Path]:
    """Return the paths that match a pattern; folders that exist are no patterns."""
    folders = [folder for folder in pattern.parents if folder.is_dir()]
    base = folders[0] if folders else Path()
    found = glob(str(pattern.relative_to(base)), root_dir=base, recursive=True)
    return [base / name for name in found]


def _is_recording(path: Path) -> bool:
    """Return True for an audio file, unless its name begins with a dot.

    Such files are incomplete, or written by macOS. A link that leads to no file counts:
    what it should have led to is missed by nobody else.
    """
    named = path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    return named and (path.is_file() or (path.is_symlink() and not path.exists()))


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key that orders numbers in a path by their value."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [p.name for p in path.parent.iterdir()]
    close = get_close_matches(path.name, names, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def stream_names(paths: list[Path], style: str) -> list[str]:
    """Return a unique name per path: short or as given, numbered if two are equal.

    What is not UTF-8 in a name is escaped: a stream's name is text.
    """
    return _unique([plain_name(name) for name in _names_of(paths, style)])


def _names_of(paths: list[Path], style: str) -> list[str]:
    names = [path.as_posix() for path in paths]
    plain = [path.name for path in paths]
    if style == "short" and len(set(plain)) == len(plain):
        return plain
    if style == "short":
        absolute = [resolved(path) for path in paths]
        root = Path(commonpath([path.parent for path in absolute]))
        names = [path.relative_to(root).as_posix() for path in absolute]
    return names


def _unique(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        names[index] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return names


def inspect(path: Path, zone: tzinfo | None = None) -> RecordingHeader:
    """Read a recording's header.

    Parameters
    ----------
    path : Path
        Path of the recording.
    zone : tzinfo, optional
        Zone of times of day without one.

    Raises
    ------
    AudioFileError
        The file cannot be read, is no audio file, or has no samples.
    """
    import soundfile

    if (problem := _link_problem(path)) is not None:
        raise AudioFileError(problem)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AudioFileError(f"'{path}' is a pipe, socket or device, and no file")
        if status.st_size == 0:
            raise AudioFileError(f"'{path}' is empty (0 bytes)")
        container = examine(path)
        with container.decoding(), container.open(path) as file:
            frames = container.n_samples or int(file.frames)
            factor = expansion(path, int(file.samplerate), container)
            header = RecordingHeader(
                path,
                round(int(file.samplerate) * (factor or 1)),
                int(file.channels),
                frames if frames < _UNKNOWN_SAMPLES else None,
                find_start(path, file.comment, file.date, zone, container),
                container,
                factor,
            )
    except OSError as error:
        raise AudioFileError(f"'{path}' cannot be read: {error.strerror}") from error
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            f"'{path}' is not a recording that can be read: {_reason(path, error.code)}"
        ) from error
    if not MIN_RATE <= header.sample_rate <= MAX_RATE:
        raise AudioFileError(
            f"'{path}' has a sample rate of {header.sample_rate} Hz: recordings of "
            f"{MIN_RATE} Hz to {MAX_RATE // 1_000_000} MHz can be used"
        )
    if header.n_samples == 0:
        cut = ": it was cut off" if header.truncated else ""
        raise AudioFileError(f"'{path}' holds no samples{cut}")
    return header


def _reason(path: Path, code: int) -> str:
    """Return why the decoder refuses a file, by the code of its error, and a remedy."""
    try:
        with path.open("rb") as file:
            begin = file.read(_LOOKED_AT)
    except OSError as error:
        return f"{error.strerror}"
    if not begin.strip(b"\0"):
        return "it begins with zeros alone, as a copy that failed: copy it again"
    if code != _UNKNOWN_FORMAT:
        return "its header is damaged, or names an encoding that is not decoded"
    if path.suffix.lower() in (".raw", ".pcm"):
        return "it has no header; samples without one are read by the source pipe"
    if begin.isascii() and not begin.translate(None, _TEXT):
        is_yaml = path.suffix.lower() in (".yaml", ".yml")
        hint = " (a configuration goes behind --config)" if is_yaml else ""
        return f"it is a text file{hint}"
    return "its content is that of no known audio format"


class Recording:
    """Open recording, which is read in parts.

    Parameters
    ----------
    header : RecordingHeader
        Header from `inspect`.

    Attributes
    ----------
    problem : str or None
        At the end of the file, a sentence if samples are missing or damaged.
    """

    def __init__(self, header: RecordingHeader) -> None:
        self.header = header
        self.problem: str | None = None
        self._read = 0
        self._ended = False
        self._file: Any = None

    def open(self) -> None:
        """Open the file.

        Raises
        ------
        AudioFileError
            The file was removed or changed after it was inspected.
        """
        import soundfile

        try:
            with self.header.container.decoding():
                self._file = self.header.container.open(self.header.path)
        except (OSError, soundfile.LibsndfileError) as error:
            raise AudioFileError(
                f"'{self.header.path}' can no longer be read: it was removed or "
                "changed since its header was read"
            ) from error

    def seek(self, sample: int) -> None:
        """Continue reading at a sample.

        Raises
        ------
        AudioFileError
            The file has no such sample, or its format cannot seek.
        """
        import soundfile

        if sample == self._read:
            return
        try:
            with self.header.container.decoding():
                self._read = int(self._file.seek(sample))
        except soundfile.LibsndfileError as error:
            raise AudioFileError(
                f"'{self.header.path}' cannot be read from sample {sample} on: it is "
                "shorter, or its format has no such place"
            ) from error

    def read(self, n_samples: int) -> Float32:
        """Return the next samples, float32[n_samples, n_channels], or fewer at the end.

        Samples before a damaged place are returned; `problem` then says so.
        """
        import soundfile

        if self._ended:
            return np.empty((0, self.header.channels), np.float32)
        if self.header.n_samples is not None:
            # A block of any length may exceed the file by far; reading one sample
            # more than expected shows that the end has been reached.
            n_samples = min(n_samples, self.header.n_samples - self._read + 1)
        samples = np.full((n_samples, self.header.channels), np.nan, np.float32)
        try:
            with self.header.container.decoding():
                samples = self._file.read(n_samples, out=samples)
        except soundfile.LibsndfileError:
            # libsndfile does not say how much it decoded before the damage: NaN is
            # left in the rest.
            missing = np.isnan(samples).all(axis=1)
            count = int(missing.argmax()) if missing.any() else n_samples
            samples = samples[:count]
            self._ended = True
        self._read += len(samples)
        if self._ended or len(samples) < n_samples:
            self._finish()
        return samples

    def _finish(self) -> None:
        header = self.header
        expected = header.n_samples or 0
        # What stands behind the last sample may be anything.
        damaged = self._ended and (self._read < expected or not expected)
        self._ended = True
        # Compressed formats estimate their length: a little less is no damage.
        tolerance = 0 if header.path.suffix.lower() in (".flac", ".wav") else 8192
        if damaged or header.truncated or self._read < expected - tolerance:
            seconds = self._read / header.sample_rate
            kind = "damaged" if damaged else "cut off"
            self.problem = (
                f"'{header.path}' is {kind} after {seconds:.3f} s: "
                "what comes before was used"
            )
        elif header.container.unread:
            self.problem = f"'{header.path}' {header.container.unread}"

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with self.header.container.decoding():
                self._file.close()
            self._file = None
