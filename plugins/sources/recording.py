"""Plays what the ``recording`` sink kept: the same blocks' samples, the same gaps."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from neurovocal.engine.contracts.errors import AudioFileError, EndOfStream
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.stages import SourceItem
from neurovocal.engine.contracts.types import Block, Gap, StreamInfo
from neurovocal.plugins.storage.folder import is_set_aside, track_name


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
    """A recorded stream: where its audio is, and where it jumps."""

    audio: Path
    info: StreamInfo
    order: int
    jumps: list[dict[str, Any]]


class RecordedSource:
    """Recorded streams, with their positions and gaps.

    Parameters
    ----------
    options : RecordedOptions
        Stream and length of blocks.
    folder : Path
        The folder, as found.
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
        """The stream that is being played."""
        if self._info is None:
            raise RuntimeError("recorded streams are known once they are open")
        return self._info

    def open(self) -> None:
        """Read all timelines.

        Raises
        ------
        AudioFileError
            There is no such recording, or one of its two files is damaged.
        """
        tracks = _tracks(self._folder, self._options.stream)
        if not tracks:
            raise AudioFileError(_nothing(self._folder, self._options.stream))
        self._info = tracks[0].info
        self._items = self._play_all(tracks)

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

    def _play_all(self, tracks: list[_Track]) -> Iterator[SourceItem]:
        import soundfile

        for track in tracks:
            try:
                self._audio = soundfile.SoundFile(track.audio)
            except (OSError, soundfile.LibsndfileError) as error:
                raise AudioFileError(f"{track.audio}: {error}") from error
            yield track.info
            yield from self._play(track.jumps)
            self._audio.close()

    def _play(self, jumps: list[dict[str, Any]]) -> Iterator[SourceItem]:
        position = 0
        for jump in jumps:
            for block in self._piece(position, jump["at"]):
                yield block
                position = block.stop
            yield Gap(jump["start"], jump["stop"], jump["reason"])
            position = jump["stop"]
        yield from self._piece(position, self._audio.frames)

    def _piece(self, position: int, until: int) -> Iterator[Block]:
        while (left := until - self._audio.tell()) > 0:
            count = min(left, self._options.block_length)
            samples = self._audio.read(count, dtype="float32", always_2d=True)
            if not len(samples):  # cut off
                return
            yield Block(position, samples)
            position += len(samples)


def _tracks(folder: Path, wanted: str | None) -> list[_Track]:
    tracks = []
    for timeline in folder.glob("*.jsonl"):
        try:
            lines = timeline.read_text(encoding="utf-8").splitlines()
            head, *jumps = [json.loads(line) for line in lines]
            info = StreamInfo(head["stream"], head["sample_rate"])
            if is_set_aside(timeline) and track_name(info.stream) != timeline.stem:
                continue
            track = _Track(timeline.with_suffix(".wav"), info, head["order"], jumps)
        except (OSError, ValueError, KeyError) as error:
            raise AudioFileError(
                f"'{timeline}' is not a complete recording: {error!r}"
            ) from error
        channel = info.stream.startswith(f"{wanted}.ch")
        if wanted is None or info.stream == wanted or channel:
            tracks.append(track)
    return sorted(tracks, key=lambda track: track.order)


def _nothing(folder: Path, wanted: str | None) -> str:
    what = f" of stream '{wanted}'" if wanted else ""
    return f"'{folder}' holds no recording{what}"


def _check(options: RecordedOptions, context: BuildContext) -> Iterable[str]:
    folder = context.path(options.path)
    try:
        if not _tracks(folder, options.stream):
            yield _nothing(folder, options.stream)
    except AudioFileError as error:
        yield str(error)


def _build(options: RecordedOptions, context: BuildContext) -> RecordedSource:
    return RecordedSource(options, context.path(options.path))


plugin = Plugin(
    kind="source",
    options=RecordedOptions,
    build=_build,
    summary="A stream that the recording sink kept, with its gaps",
    check=_check,
)
