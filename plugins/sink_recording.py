"""Keeps the audio that lanes heard, with its gaps, so that a live run can be replayed.

A folder with one pair of files per stream: ``STREAM.wav`` (RF64, float32: what the
source delivered, bit for bit) and ``STREAM.jsonl``, its timeline.
"""

import json
import logging
from collections import deque
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.resampler import scaled
from neurovocal.engine.types import Block, Gap, Message, StreamInfo, Withheld

log = logging.getLogger("neurovocal")

# Gaps are told at the lane's rate: rounding moves them by so many samples.
_ROUNDING = 4

NOT_RECORDED = "not recorded"


class RecordingOptions(Options):
    """Options of the ``recording`` sink."""

    path: str
    """Folder to write into; made if it does not exist. A run replaces what an
    earlier run recorded there under the same names."""


class RecordingSink:
    """Writes blocks as they came and notes where the stream jumped.

    Parameters
    ----------
    folder : Path
        Where the recordings go.
    """

    wants = frozenset({"block", "gap", "withheld"})

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tracks: dict[str, _Track] = {}

    def open(self) -> None:
        """Make the folder.

        Raises
        ------
        ConfigError
            It cannot be made or written to.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / ".probe").touch()
            (self._folder / ".probe").unlink()
        except OSError as error:
            raise ConfigError(
                f"recordings cannot be written to '{self._folder}': {error.strerror}"
            ) from error

    def write(self, message: Message) -> None:
        """Append a block, or remember why samples are missing before the next."""
        name = message.info.stream
        match message.event:
            case Gap() | Withheld() as hole:
                if name in self._tracks:
                    rate = message.info.sample_rate
                    self._tracks[name].expect(hole, rate)
            case Block() as block:
                track = self._tracks.get(name)
                if track is None:
                    order = len(self._tracks)
                    track = _Track(self._folder, message.info, order)
                    self._tracks[name] = track
                track.append(block)

    def flush(self, timeout: float) -> None:
        """Bring what was written to the disk."""
        for track in self._tracks.values():
            track.flush()

    def close(self) -> None:
        """Finish the files."""
        for track in self._tracks.values():
            track.close()
        self._tracks.clear()


class _Track:
    """The two files of one stream."""

    def __init__(self, folder: Path, info: StreamInfo, order: int) -> None:
        import soundfile

        stem = track_name(info.stream)
        self._audio: Any = soundfile.SoundFile(
            folder / f"{stem}.wav",
            mode="w",
            samplerate=info.sample_rate,
            channels=1,
            format="RF64",
            subtype="FLOAT",
        )
        self._timeline: TextIO = (folder / f"{stem}.jsonl").open("w", encoding="utf-8")
        head = {"stream": info.stream, "sample_rate": info.sample_rate}
        self._note({**head, "order": order})
        self._stop = 0
        self._rate = info.sample_rate
        self._holes: deque[tuple[int, str]] = deque()

    def expect(self, hole: Gap | Withheld, rate: int) -> None:
        """Remember why samples will be missing; blocks before it may still come."""
        self._holes.append((scaled(hole.start, rate, self._rate), hole.reason))

    def append(self, block: Block) -> None:
        """Write a block; one that does not follow begins a new piece."""
        reason = ""
        while self._holes and self._holes[0][0] <= block.start + _ROUNDING:
            reason = self._holes.popleft()[1]
        if block.start != self._stop or reason:
            self._note(
                {
                    "at": self._audio.frames,
                    "start": self._stop,
                    "stop": block.start,
                    "reason": reason or NOT_RECORDED,
                }
            )
        self._audio.write(block.samples)
        self._stop = block.stop

    def flush(self) -> None:
        self._audio.flush()
        self._timeline.flush()

    def close(self) -> None:
        self._audio.close()
        self._timeline.close()

    def _note(self, entry: dict[str, Any]) -> None:
        self._timeline.write(json.dumps(entry) + "\n")


def track_name(stream: str) -> str:
    """File name, without its ending, that a stream is recorded under."""
    return quote(stream, safe=" ")


def _build(options: RecordingOptions, context: BuildContext) -> RecordingSink:
    return RecordingSink(Path(options.path).expanduser())


def _claims(options: RecordingOptions) -> frozenset[str]:
    return frozenset({f"folder:{Path(options.path).expanduser().resolve()}"})


plugin = Plugin(
    kind="sink",
    options=RecordingOptions,
    build=_build,
    summary="Keeps the audio with its gaps, so that a live run can be replayed",
    resources=_claims,
)
