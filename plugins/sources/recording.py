"""Source that reads the files of the ``recording`` sink, with their gaps."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

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
from neurovocal.plugins.storage.folder import is_set_aside, stream_file_name


class RecordedOptions(Options):
    """Options of the ``recording`` source."""

    path: str
    """Folder that the `recording` sink wrote."""
    stream: str | None = None
    """Name of a stream in it, or of a lane with several channels; by default all
    streams are played, one after the other."""
    block_length: int = Field(default=8192, ge=1)
    """Samples read at once."""


@dataclass(frozen=True, slots=True)
class _Track:
    """Recorded stream: its audio file and the gaps in it."""

    audio: Path
    info: StreamInfo
    order: int
    gaps: list[dict[str, Any]]


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
        tracks = _tracks(self._folder, self._options.stream)
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

    def _items_of(self, tracks: list[_Track]) -> Iterator[SourceItem]:
        import soundfile

        for track in tracks:
            try:
                self._audio = soundfile.SoundFile(track.audio)
            except (OSError, soundfile.LibsndfileError) as error:
                raise AudioFileError(f"{track.audio}: {error}") from error
            yield track.info
            yield from self._track_items(track.gaps)
            self._audio.close()

    def _track_items(self, gaps: list[dict[str, Any]]) -> Iterator[SourceItem]:
        position = 0
        for gap in gaps:
            for block in self._blocks(position, gap["at"]):
                yield block
                position = block.stop
            yield Gap(gap["start"], gap["stop"], gap["reason"])
            position = gap["stop"]
        yield from self._blocks(position, self._audio.frames)

    def _blocks(self, position: int, until: int) -> Iterator[Block]:
        while (left := until - self._audio.tell()) > 0:
            count = min(left, self._options.block_length)
            samples = self._audio.read(count, dtype="float32", always_2d=True)
            if not len(samples):  # the file is truncated
                return
            yield Block(position, samples)
            position += len(samples)


def _tracks(folder: Path, wanted: str | None) -> list[_Track]:
    tracks = []
    for timeline in folder.glob("*.jsonl"):
        try:
            lines = timeline.read_text(encoding="utf-8").splitlines()
            head, *gaps = [json.loads(line) for line in lines]
            info = StreamInfo(head["stream"], head["sample_rate"])
            own_stem = stream_file_name(info.stream)
            if is_set_aside(timeline) and timeline.stem != own_stem:
                continue
            track = _Track(timeline.with_suffix(".wav"), info, head["order"], gaps)
        except (OSError, ValueError, KeyError) as error:
            raise AudioFileError(
                f"'{timeline}' is not a complete recording: {error!r}"
            ) from error
        channel = info.stream.startswith(f"{wanted}.ch")
        if wanted is None or info.stream == wanted or channel:
            tracks.append(track)
    return sorted(tracks, key=lambda track: track.order)


def _none_found(folder: Path, wanted: str | None) -> str:
    what = f" of stream '{wanted}'" if wanted else ""
    return f"'{folder}' holds no recording{what}"


def _check(options: RecordedOptions, context: BuildContext) -> Iterable[str]:
    folder = context.path(options.path)
    try:
        if not _tracks(folder, options.stream):
            yield _none_found(folder, options.stream)
    except AudioFileError as error:
        yield str(error)


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
