"""Source that reads the files of the ``recording`` sink, with their gaps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from neurovocal.engine import (
    AudioFileError,
    Block,
    BuildContext,
    EndOfStream,
    FileAccess,
    Gap,
    Options,
    Plugin,
    SourceItem,
    StreamInfo,
)
from neurovocal.engine.contracts.options import BlockLength, OptionProblem
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.engine.support.text import printable
from neurovocal.plugins.storage.folder import is_set_aside, stream_file_name

# A timeline of a year with a gap every second is shorter.
_MOST_TIMELINE_BYTES = 2**32
_MOST_GAPS = 4_000_000
_MOST_LINE_BYTES = 64 * 1024
_HIGHEST_RATE = 10_000_000
_LONGEST_S = 20 * 365 * 86_400  # of a stream, in seconds


class RecordedOptions(Options):
    """Options of the ``recording`` source."""

    path: str
    """Folder that the `recording` sink wrote."""
    stream: str | None = None
    """Name of a stream in it, or of a lane with several channels; by default all
    streams are played, one after the other."""
    run: str | None = None
    """Name of a run: only its streams are played; by default those of all runs."""
    block_length: BlockLength = 8192
    """Samples read at once."""


class _Head(msgspec.Struct):
    """First line of a timeline."""

    stream: Annotated[str, Meta(min_length=1, max_length=8192)]
    sample_rate: Annotated[int, Meta(ge=1, le=_HIGHEST_RATE)]
    order: Annotated[int, Meta(ge=0)]
    run: Annotated[str, Meta(max_length=1024)] = ""


class Jump(msgspec.Struct, gc=False):
    """Further line: ``[start, stop)`` is missing behind ``at`` samples of audio."""

    at: Annotated[int, Meta(ge=0)]
    start: Annotated[int, Meta(ge=0)]
    stop: Annotated[int, Meta(ge=0)]
    reason: Annotated[str, Meta(max_length=8192)]


_heads = JsonReader(_Head, most_bytes=_MOST_LINE_BYTES)
_jumps = JsonReader(Jump, most_bytes=_MOST_LINE_BYTES)


@dataclass(frozen=True, slots=True)
class Track:
    """Recorded stream: its timeline, its audio file and the gaps in it."""

    timeline: Path
    info: StreamInfo
    order: int
    run: str
    gaps: list[Jump]

    @property
    def audio(self) -> Path:
        """The audio file beside the timeline."""
        return self.timeline.with_suffix(".wav")


class RecordedSource:
    """Source of recorded streams, with their positions and gaps.

    Parameters
    ----------
    options : RecordedOptions
        Stream and length of blocks.
    folder : Path
        Folder of the recording.
    """

    live = False

    def __init__(self, options: RecordedOptions, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._info: StreamInfo | None = None
        self._audio: Any = None
        self._items: Iterator[SourceItem] = iter(())

    @property
    def info(self) -> StreamInfo:
        """The stream that is being read."""
        if self._info is None:
            raise RuntimeError("recorded streams are known once they are open")
        return self._info

    def open(self) -> None:
        """Read the timelines of all streams.

        Raises
        ------
        AudioFileError
            There is no such recording, or one of its files is damaged.
        """
        tracks = _tracks(self._folder, self._options)
        if not tracks:
            raise AudioFileError(_none_found(self._folder, self._options.stream))
        self._info = tracks[0].info
        self._items = self._items_of(tracks)

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next block, gap or stream."""
        item = next(self._items, None)
        if item is None:
            raise EndOfStream
        if isinstance(item, StreamInfo):
            self._info = item
        return item

    def close(self) -> None:
        """Close the audio."""
        self._items = iter(())
        if self._audio is not None:
            self._audio.close()
            self._audio = None

    def _items_of(self, tracks: list[Track]) -> Iterator[SourceItem]:
        for track in tracks:
            self._audio = _open_audio(track)
            yield track.info
            yield from self._track_items(track.gaps)
            self._audio.close()

    def _track_items(self, gaps: list[Jump]) -> Iterator[SourceItem]:
        position = 0
        for gap in gaps:
            for block in self._blocks(position, gap.at):
                yield block
                position = block.stop
            yield Gap(gap.start, gap.stop, gap.reason)
            position = gap.stop
        yield from self._blocks(position, self._audio.frames)

    def _blocks(self, position: int, until: int) -> Iterator[Block]:
        while (left := until - self._audio.tell()) > 0:
            count = min(left, self._options.block_length)
            samples = self._audio.read(count, dtype="float32", always_2d=True)
            if not len(samples):  # the file is truncated
                return
            yield Block(position, samples)
            position += len(samples)


def _tracks(folder: Path, options: RecordedOptions) -> list[Track]:
    """Return the streams that the options name, in the order of the run.

    Raises
    ------
    AudioFileError
        A timeline or its audio is damaged, or two are the same stream.
    """
    tracks = []
    for timeline in sorted(folder.glob("*.jsonl")):
        if timeline.name.startswith("."):
            continue  # what another system keeps beside each file
        track = read_track(timeline)
        name, wanted = track.info.stream, options.stream
        # What was set aside is played only for a replay of its run.
        was_left = is_set_aside(timeline) and timeline.stem != stream_file_name(name)
        if options.run is not None and track.run:
            is_wanted = track.run == options.run
        else:
            is_wanted = not was_left
        if wanted is not None:
            is_wanted &= name == wanted or name.startswith(f"{wanted}.ch")
        if is_wanted:
            tracks.append(track)
    tracks.sort(key=lambda track: track.order)
    for one, other in pairwise(tracks):
        if one.run and (one.run, one.order) == (other.run, other.order):
            raise AudioFileError(
                f"'{one.timeline}' and '{other.timeline.name}' are the same recording: "
                "move one of them away"
            )
    return tracks


def read_track(timeline: Path) -> Track:
    """Read a timeline, and check that it fits its audio.

    Raises
    ------
    AudioFileError
        The timeline or its audio is missing or damaged.
    """
    line = 0
    gaps: list[Jump] = []
    try:
        if not timeline.is_file():
            raise JsonError("it is no file")
        if timeline.stat().st_size > _MOST_TIMELINE_BYTES:
            raise JsonError(f"it has more than {_MOST_TIMELINE_BYTES} bytes")
        with timeline.open("rb") as lines:
            line = 1
            head = _heads.read(lines.readline(_MOST_LINE_BYTES + 1))
            end = at = 0  # of the stream and of its audio, as far as they are known
            most = _LONGEST_S * head.sample_rate
            while text := lines.readline(_MOST_LINE_BYTES + 1):
                line += 1
                gap = _jumps.read(text)
                _check_order(gap, end + gap.at - at, at, most)
                end, at = gap.stop, gap.at
                gaps.append(gap)
                if line > _MOST_GAPS:
                    raise JsonError(f"it has more than {_MOST_GAPS} gaps")
    except (OSError, JsonError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        where = f", line {line}" if line else ""
        raise AudioFileError(
            f"'{timeline}'{where} is not the timeline of a recording: {reason}"
        ) from error
    info = StreamInfo(head.stream, head.sample_rate)
    track = Track(timeline, info, head.order, head.run, gaps)
    with _open_audio(track):
        return track


def _check_order(gap: Jump, expected: int, at: int, most: int) -> None:
    """Raise JsonError if a gap does not follow the audio and the gaps before it."""
    if gap.at < at:
        raise JsonError(f"'at' is {gap.at}, less than in the line before")
    if gap.start != expected:
        raise JsonError(f"'start' is {gap.start}, but the audio ends at {expected}")
    if gap.stop < gap.start:
        raise JsonError(f"'stop' is {gap.stop}, before 'start'")
    if gap.stop > most:
        raise JsonError(f"'stop' is {gap.stop}, years after the beginning")


def _open_audio(track: Track) -> Any:
    """Open the audio of a recording, and check that it is what the timeline says."""
    import soundfile

    try:
        if not track.audio.is_file():
            raise AudioFileError(f"'{track.audio}' is missing beside its timeline")
        audio = soundfile.SoundFile(track.audio)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioFileError(
            f"'{track.audio}' beside '{track.timeline.name}' cannot be read as audio"
        ) from error
    needed = track.gaps[-1].at if track.gaps else 0
    if (audio.samplerate, audio.channels) != (track.info.sample_rate, 1):
        problem = (
            f"has {audio.channels} channels at {audio.samplerate} Hz, its timeline "
            f"says 1 at {track.info.sample_rate} Hz"
        )
    elif audio.frames < needed:
        problem = f"has {audio.frames} samples, its timeline refers to {needed}"
    else:
        return audio
    audio.close()
    raise AudioFileError(f"'{track.audio}' {problem}")


def _none_found(folder: Path, wanted: str | None) -> str:
    what = f" of stream '{printable(wanted)}'" if wanted else ""
    return f"'{folder}' holds no recording{what}"


def _check(options: RecordedOptions, context: BuildContext) -> Iterable[str]:
    folder = context.path(options.path)
    try:
        if not _tracks(folder, options):
            yield OptionProblem("path", _none_found(folder, options.stream))
    except AudioFileError as error:
        yield OptionProblem("path", str(error))


def _reads(options: RecordedOptions, context: BuildContext) -> list[FileAccess]:
    folder = context.path(options.path)
    return [
        FileAccess(path) for end in ("wav", "jsonl") for path in folder.glob(f"*.{end}")
    ]


def _build(options: RecordedOptions, context: BuildContext) -> RecordedSource:
    return RecordedSource(options, context.path(options.path))


plugin = Plugin(
    kind="source",
    options=RecordedOptions,
    build=_build,
    summary="A stream that the recording sink kept, with its gaps",
    check=_check,
    reads=_reads,
)
