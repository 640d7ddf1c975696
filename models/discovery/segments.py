"""Segments of recordings without labels, found by a detector of the engine."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from neurovocal.engine.audio.non_finite import finite_items
from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.refusals import sentences_of
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Detector
from neurovocal.engine.contracts.types import Block, Gap, Offset, StreamInfo
from neurovocal.plugins.sources.audio_files.file import (
    Recording,
    RecordingHeader,
    channel_problem,
    find_recordings,
    inspect,
)

_BLOCK_LENGTH = 2**16


@dataclass(frozen=True, slots=True)
class DetectorChoice:
    """Detector that finds the segments.

    Parameters
    ----------
    plugin : str
        Name of the detector.
    options : mapping
        Its options.
    bundle : Bundle, optional
        Bundle whose rate the detector works at, and whose network it may use.
    base : Path
        Folder that relative names of plugins start from.
    """

    plugin: str
    options: Mapping[str, Any] = field(default_factory=dict)
    bundle: Bundle | None = None
    base: Path = field(default_factory=Path.cwd)

    def rate_of(self, sample_rate: int) -> int:
        """Return the rate in Hz that the detector works at."""
        return (
            sample_rate
            if self.bundle is None
            else self.bundle.manifest.rate_of(sample_rate)
        )

    def checked(self) -> tuple[Plugin[Any], Options]:
        """Return plugin and options; raises ConfigError if they are not possible."""
        plugin = Registry().get("detector", self.plugin, self.base)
        try:
            return plugin, plugin.options.model_validate(dict(self.options))
        except ValidationError as error:
            sentences = sentences_of(error, plugin.options, "detector.options.")
            raise ConfigError(sentences) from error

    def build(self, sample_rate: int) -> Detector:
        """Build the detector for streams of a rate in Hz.

        Raises
        ------
        ConfigError
            The options are not possible at this rate.
        """
        plugin, options = self.checked()
        info = StreamInfo("discover", self.rate_of(sample_rate))
        context = BuildContext(
            SystemClock(), "discover", base=self.base, info=info, bundle=self.bundle
        )
        if problems := list(plugin.check(options, context)):
            raise ConfigError(problems)
        built: Detector = plugin.build(options, context)
        return built


@dataclass(frozen=True, slots=True)
class SourceRecording:
    """A recording that is searched for segments, or that is set aside.

    Parameters
    ----------
    path : str
        Absolute path.
    sample_rate, channels, n_samples : int
        0 where the recording cannot be read.
    problem : str
        Why it is set aside, or where it ends too early; empty if nothing is wrong.
    """

    path: str
    sample_rate: int = 0
    channels: int = 0
    n_samples: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Segments of several recordings, by recording, channel and onset.

    Parameters
    ----------
    recording : int32[n_segments]
        Index of the recording.
    channel : int16[n_segments]
        From 1.
    onset, offset : int64[n_segments]
        In samples of the recording.
    """

    recording: NDArray[np.int32]
    channel: NDArray[np.int16]
    onset: NDArray[np.int64]
    offset: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.onset)

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[int, int, int, int]]) -> "Segments":
        """Return the segments of rows of recording, channel, onset and offset."""
        table = np.array(rows, np.int64).reshape(-1, 4)
        return cls(
            table[:, 0].astype(np.int32),
            table[:, 1].astype(np.int16),
            table[:, 2].copy(),
            table[:, 3].copy(),
        )

    def durations_s(self, recordings: Sequence[SourceRecording]) -> NDArray[np.float64]:
        """Return the duration of each segment in seconds."""
        rates = np.array([max(r.sample_rate, 1) for r in recordings] or [1], float)
        seconds: NDArray[np.float64] = (self.offset - self.onset) / rates[
            self.recording
        ]
        return seconds


def find_files(names: Sequence[str]) -> list[Path]:
    """Return the recordings that files, folders and patterns name, each once.

    Raises
    ------
    ConfigError
        A name leads to no recording; all such names at once.
    """
    context = BuildContext(SystemClock(), "discover")
    found: dict[Path, None] = {}
    problems = []
    for name in names:
        try:
            paths = find_recordings(name, context, recursive=True)
        except AudioFileError as error:
            problems.append(str(error))
            continue
        found.update(dict.fromkeys(path.absolute() for path in paths))
    if problems:
        raise ConfigError(problems)
    return list(found)


def detect_recording(
    path: Path, number: int, channels: Sequence[int], choice: DetectorChoice
) -> tuple[SourceRecording, list[tuple[int, int, int, int]]]:
    """Find the segments of a recording, block by block.

    Parameters
    ----------
    path : Path
        The recording.
    number : int
        Its index.
    channels : sequence of int
        Channels to search, from 1.
    choice : DetectorChoice
        Detector.

    Returns
    -------
    recording : SourceRecording
        With the reason if it is set aside: then there are no segments.
    rows : list of (int, int, int, int)
        Index of the recording, channel, onset and offset of each segment.
    """
    try:
        header = inspect(path)
        if problem := channel_problem(header, channels):
            raise AudioFileError(problem)
        return _detect(header, number, channels, choice)
    except (AudioFileError, ConfigError) as error:
        reason = " ".join(str(error).splitlines())
        return SourceRecording(str(path), problem=reason), []


def _detect(
    header: RecordingHeader,
    number: int,
    channels: Sequence[int],
    choice: DetectorChoice,
) -> tuple[SourceRecording, list[tuple[int, int, int, int]]]:
    rate = header.sample_rate
    lanes = [_Lane(rate, choice) for _ in channels]
    found: list[list[Offset]] = [[] for _ in channels]
    position = 0
    with closing(Recording(header)) as recording:
        recording.open()
        while len(block := recording.read(_BLOCK_LENGTH)):
            for channel, lane, marks in zip(channels, lanes, found, strict=True):
                samples = np.ascontiguousarray(block[:, channel - 1 : channel])
                marks += lane.process(position, samples)
            position += len(block)
        problem = recording.problem or ""
    rows = []
    for channel, lane, marks in zip(channels, lanes, found, strict=True):
        marks += lane.flush()
        own = [lane.in_recording(mark, position) for mark in marks]
        rows += [(number, channel, *span) for span in sorted(own) if span[0] < span[1]]
    source = SourceRecording(str(header.path), rate, header.channels, position, problem)
    return source, rows


class _Lane:
    """Detector of one channel, behind a resampler where a bundle has a rate."""

    def __init__(self, sample_rate: int, choice: DetectorChoice) -> None:
        self._rate, self._own_rate = sample_rate, choice.rate_of(sample_rate)
        self._detector = choice.build(sample_rate)
        self._resampler = (
            None
            if self._own_rate == sample_rate
            else Resampler(sample_rate, self._own_rate)
        )

    def process(self, start: int, samples: NDArray[np.float32]) -> Iterator[Offset]:
        """Yield the offsets that samples bring, in samples of the detector's rate."""
        for item in finite_items(start, samples):
            items: Sequence[Block | Gap] = [item]
            if self._resampler is not None:
                items = [
                    part
                    for part in self._resampler.process(item)
                    if isinstance(part, Block | Gap)
                ]
            for part in items:
                yield from _offsets(self._detector.process(part))

    def flush(self) -> Iterator[Offset]:
        """Yield the offsets at the end of the recording."""
        if self._resampler is not None:
            for part in self._resampler.flush():
                if isinstance(part, Block | Gap):
                    yield from _offsets(self._detector.process(part))
        yield from _offsets(self._detector.flush())

    def in_recording(self, mark: Offset, n_samples: int) -> tuple[int, int]:
        """Return a segment in samples of the recording."""
        scale = self._rate / self._own_rate
        onset = max(0, round(mark.onset * scale))
        return onset, min(round(mark.sample * scale), n_samples)


def _offsets(marks: Any) -> Iterator[Offset]:
    return (mark for mark in marks if isinstance(mark, Offset))
