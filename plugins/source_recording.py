"""Plays what the ``recording`` sink kept: the same blocks' samples, the same gaps."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from neurovocal.engine.errors import AudioFileError, EndOfStream
from neurovocal.engine.protocols import SourceItem
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.types import Block, Gap, StreamInfo
from neurovocal.plugins.sink_recording import track_name


class RecordedOptions(Options):
    """Options of the ``recording`` source."""

    path: str
    """Folder that the `recording` sink wrote."""
    stream: str
    """Name of the stream in it."""
    block_length: int = Field(default=8192, ge=1)
    """Samples read at once."""


class RecordedSource:
    """A recorded stream, with its positions and gaps.

    Parameters
    ----------
    options : RecordedOptions
        Folder, stream and length of blocks.
    folder : Path
        The folder, as found.
    """

    live = False

    def __init__(self, options: RecordedOptions, folder: Path) -> None:
        self._options = options
        self._stem = folder / track_name(options.stream)
        self._info: StreamInfo | None = None
        self._audio: Any = None
        self._items: Iterator[SourceItem] = iter(())

    @property
    def info(self) -> StreamInfo:
        """The stream as it was recorded."""
        if self._info is None:
            raise RuntimeError("a recorded stream is known once it is open")
        return self._info

    def open(self) -> None:
        """Open audio and timeline.

        Raises
        ------
        AudioFileError
            One of the two files is missing or damaged.
        """
        import soundfile

        timeline = self._stem.with_name(self._stem.name + ".jsonl")
        wav = self._stem.with_name(self._stem.name + ".wav")
        try:
            lines = timeline.read_text(encoding="utf-8").splitlines()
            head, *jumps = [json.loads(line) for line in lines]
            self._info = StreamInfo(head["stream"], head["sample_rate"])
            self._audio = soundfile.SoundFile(wav)
        except (OSError, ValueError, KeyError, soundfile.LibsndfileError) as error:
            raise AudioFileError(
                f"'{self._stem}' is not a complete recording: {error}"
            ) from error
        self._items = self._play(jumps)

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next block or gap."""
        item = next(self._items, None)
        if item is None:
            raise EndOfStream
        return item

    def close(self) -> None:
        """Close the audio."""
        self._items = iter(())
        if self._audio is not None:
            self._audio.close()
            self._audio = None

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
            yield Block(position, samples)
            position += len(samples)


def _check(options: RecordedOptions, context: BuildContext) -> Iterable[str]:
    folder = context.path(options.path)
    if not (folder / f"{track_name(options.stream)}.jsonl").is_file():
        yield f"'{folder}' holds no recording of stream '{options.stream}'"


def _build(options: RecordedOptions, context: BuildContext) -> RecordedSource:
    return RecordedSource(options, context.path(options.path))


plugin = Plugin(
    kind="source",
    options=RecordedOptions,
    build=_build,
    summary="A stream that the recording sink kept, with its gaps",
    check=_check,
)
