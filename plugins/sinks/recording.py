"""Keeps the audio that lanes heard, with its gaps, so that a live run can be replayed.

A folder with one pair of files per stream: ``STREAM.wav`` (RF64, float32: what the
source delivered, bit for bit) and ``STREAM.jsonl``, its timeline.
"""

import json
import logging
from collections import deque
from errno import ESTALE
from pathlib import Path

from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError, StageError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Block, Gap, Message, StreamInfo, Withheld
from neurovocal.plugins.storage.folder import OutputFolder, set_aside, track_name
from neurovocal.plugins.storage.text_file import TextOutput, folder_problems
from neurovocal.plugins.storage.wave_file import FloatWave

log = logging.getLogger("neurovocal")

# Gaps are told at the lane's rate: rounding moves them by so many samples.
_ROUNDING = 4

NOT_RECORDED = "not recorded"


class RecordingOptions(Options):
    """Options of the ``recording`` sink."""

    path: str
    """Folder to write into; made if it does not exist. A live run sets what an
    earlier run recorded there under the same names aside, as `STREAM.1.left.wav` and
    `.jsonl`: a folder of their own makes them a recording again."""


class RecordingSink:
    """Writes blocks as they came and notes where the stream jumped.

    Parameters
    ----------
    folder : Path
        Where the recordings go.
    keeps : bool
        Whether files that are found are set aside, rather than replaced.
    """

    wants = frozenset({"block", "gap", "withheld"})

    def __init__(self, folder: Path, *, keeps: bool = False) -> None:
        self._folder = folder
        self._keeps = keeps
        self._place = OutputFolder(folder, make=True)
        self._tracks: dict[str, _Track] = {}

    def open(self) -> None:
        """Make the folder.

        Raises
        ------
        ConfigError
            It cannot be made or written to.
        """
        try:
            self._place.probe()
        except OSError as error:
            raise ConfigError(
                f"recordings cannot be written to '{self._folder}': {error.strerror}"
            ) from error

    def write(self, message: Message) -> None:
        """Append a block, or remember why samples are missing before the next.

        Raises
        ------
        StageError
            The disk does not take it; nothing of it is in the files.
        """
        name = message.info.stream
        match message.event:
            case Gap() | Withheld() as hole:
                if name in self._tracks:
                    rate = message.info.sample_rate
                    self._tracks[name].expect(hole, rate)
            case Block() as block:
                track = self._tracks.get(name)
                if track is None:
                    track = _Track(self._place, message.info, len(self._tracks))
                    track.keeps = self._keeps
                    self._tracks[name] = track
                try:
                    track.append(block)
                except OSError as error:
                    raise StageError(
                        f"audio of '{name}' cannot be written to '{self._folder}': "
                        f"{error.strerror}"
                    ) from error

    def flush(self, timeout: float) -> None:
        """Bring what was written to the disk."""
        for track in self._tracks.values():
            track.flush()

    def close(self) -> None:
        """Finish the files; opened again, they go on."""
        for track in self._tracks.values():
            track.close()


class _Track:
    """The two files of one stream; `keeps`: those that are there are set aside."""

    keeps = False

    def __init__(self, place: OutputFolder, info: StreamInfo, order: int) -> None:
        self._place, self._rate = place, info.sample_rate
        self._stem = track_name(info.stream)
        self._stop = self._jumped = 0
        self._head = {
            "stream": info.stream,
            "sample_rate": info.sample_rate,
            "order": order,
        }
        self._begin()
        self._holes: deque[tuple[int, str]] = deque()

    def expect(self, hole: Gap | Withheld, rate: int) -> None:
        """Remember why samples will be missing; blocks before it may still come."""
        self._holes.append((scaled(hole.start, rate, self._rate), hole.reason))

    def append(self, block: Block) -> None:
        """Write a block; one that does not follow begins a new piece."""
        if not self._audio.is_open:
            self._open()
        elif not self._audio.in_place:
            raise OSError(ESTALE, self._place.lost(self._audio.path))
        due = [why for at, why in self._holes if at <= block.start + _ROUNDING]
        if due or block.start != self._stop:
            self._jump(block.start, due[-1] if due else NOT_RECORDED)
            for _ in due:
                self._holes.popleft()
        self._audio.write(self._audio.frames, block.samples[:, 0])
        self._stop = block.stop

    def flush(self) -> None:
        self._audio.flush()

    def close(self) -> None:
        self._audio.close()
        self._timeline.close()

    def _begin(self) -> None:
        folder = self._place.folder
        self._audio = FloatWave(folder / f"{self._stem}.wav", self._rate)
        self._timeline_path = folder / f"{self._stem}.jsonl"
        self._timeline = TextOutput(str(self._timeline_path), place=self._place)
        self._stop = self._jumped = 0

    def _open(self) -> None:
        """Begin, or go on where a failure has interrupted."""
        self._place.enter()
        if self.keeps:
            self._set_aside("an earlier run or sink wrote it")
            self.keeps = False
        before = self._audio.frames
        if before and not self._is_whole():
            self._set_aside("one of its two files is missing")
            before = 0
        try:
            self._audio.open()
            if self._audio.frames < max(self._jumped, 1) and before:
                # The disk has lost more than the timeline can tell.
                self._set_aside("its timeline knows more than it has")
                self._audio.open()
            else:
                self._stop -= before - self._audio.frames
            if self._timeline.open():
                self._timeline.write(json.dumps(self._head) + "\n")
        except (OSError, NeurovocalError):
            self._audio.abandon()
            raise

    def _is_whole(self) -> bool:
        return self._audio.path.exists() and self._timeline_path.exists()

    def _set_aside(self, why: str) -> None:
        """Begin anew; what is there is kept, under other names."""
        self._audio.abandon()
        self._timeline.close()
        path = self._audio.path
        if path.exists() or self._timeline_path.exists():
            aside = set_aside(path, self._timeline_path)
            log.warning("'%s' is now '%s': %s", path, aside, why)
        self._begin()

    def _jump(self, start: int, reason: str) -> None:
        """Note, once, that the next sample does not follow."""
        entry = {
            "at": self._audio.frames,
            "start": self._stop,
            "stop": start,
            "reason": reason,
        }
        self._audio.flush()  # no timeline may know more samples than its audio
        self._timeline.write(json.dumps(entry) + "\n")
        self._stop, self._jumped = start, self._audio.frames


def _build(options: RecordingOptions, context: BuildContext) -> RecordingSink:
    return RecordingSink(
        Path(options.path).expanduser(),
        keeps=context.replaces_failed or context.unrepeatable,
    )


def _claims(options: RecordingOptions) -> frozenset[str]:
    return frozenset({f"folder:{Path(options.path).expanduser().resolve()}"})


plugin = Plugin(
    kind="sink",
    options=RecordingOptions,
    build=_build,
    summary="Keeps the audio with its gaps, so that a live run can be replayed",
    resources=_claims,
    check=lambda options, context: folder_problems(options.path),
)
