"""Clips: the sound of segments or bouts, with what was heard (docs/clips.md)."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Block, Message, Withheld
from neurovocal.plugins.sinks.clips.selection import (
    Choice,
    ClipSpan,
    SelectOptions,
    never_passed,
)
from neurovocal.plugins.sinks.clips.store import ClipStore, Limits, NoRoom
from neurovocal.plugins.sinks.clips.stream import ClipStream, Lengths, encoded
from neurovocal.plugins.storage.text_file import folder_problems

log = logging.getLogger("neurovocal")

_MB = 1_000_000
# Labels may come so long after the offset; the engine hands on audio in blocks of at
# most a second, and what is in the ring must outlast both.
_SETTLE_S = 1.0
_SLACK_S = 3.0
_MOST_STREAMS = 32
_RETRY_NS = 5 * NS


class ClipsOptions(Options):
    """Options of the ``clips`` sink."""

    path: str
    """Folder for the clips; made if it does not exist."""
    format: Literal["flac", "wav"] = "flac"
    """`flac`: 24 bit, lossless up to full scale; `wav`: float32, bit for bit."""
    what: Literal["segment", "bout"] = "segment"
    """A clip per segment, or per bout of segments."""
    bout_gap_s: float = Field(default=1.0, gt=0, le=60)
    """Silence up to which segments belong to one bout."""
    pre_roll_s: float = Field(default=0.5, ge=0, le=60)
    """Audio before the onset."""
    post_roll_s: float = Field(default=0.5, ge=0, le=60)
    """Audio after the offset."""
    longest_s: float = Field(default=30.0, gt=0, le=600)
    """Longest clip without its rolls: a bout is ended before, of a longer segment the
    end is kept. With the rolls it says how much audio is kept in memory."""
    select: SelectOptions = SelectOptions()
    """Rules that a segment must pass, all of them."""
    max_mb: float | None = Field(default=None, gt=0)
    """Megabytes that all clips in the folder may take; null: no limit."""
    max_files: int | None = Field(default=None, ge=1)
    """Clips that the folder may hold; null: no limit."""
    when_full: Literal["remove_oldest", "stop"] = "remove_oldest"
    """What happens at `max_mb` or `max_files`."""
    min_free_mb: float = Field(default=500.0, ge=0)
    """Megabytes that stay free on the disk: below, no clip is written, and health
    says so, until there is room again."""

    @property
    def ring_s(self) -> float:
        """Seconds of audio that are kept in memory for each stream."""
        rolls_s = self.pre_roll_s + self.post_roll_s
        gap_s = self.bout_gap_s if self.what == "bout" else 0.0
        return self.longest_s + rolls_s + gap_s + 2 * _SETTLE_S + _SLACK_S


class ClipsSink:
    """Writes the audio around chosen segments, with a sidecar that says what it is.

    Parameters
    ----------
    options : ClipsOptions
    run : str
        Name of the run, for the sidecars.
    clock : Clock
        For the pause between two looks at a disk that was full.
    store : ClipStore, optional
        Where clips go; by default the folder of the options.
    """

    wants = frozenset(
        {"block", "gap", "withheld", "onset", "offset", "label", "surprise"}
    )

    def __init__(
        self,
        options: ClipsOptions,
        run: str,
        clock: Clock,
        store: ClipStore | None = None,
    ) -> None:
        self._options, self._run, self._clock = options, run, clock
        self._store = store or ClipStore(
            Path(options.path).expanduser(), _limits(options)
        )
        self._streams: dict[str, ClipStream] = {}  # the one heard longest ago first
        self._choices: dict[str, Choice] = {}
        self._lengths = _lengths(options)
        self._trouble = ""
        self._looked_ns = 0
        self._deleted = 0
        self._told_ns = -_RETRY_NS  # when that the folder was deleted
        self._written = self._incomplete = self._refused = self._empty = 0
        self._refused_told = 0

    @property
    def trouble(self) -> str | None:
        """Why no clips are written at this moment; the engine makes it health."""
        return self._trouble or None

    def describe(self) -> Iterator[str]:
        """What a run will take; ``neurovocal check`` prints it."""
        seconds = self._options.ring_s
        yield (
            f"keeps {seconds:g} s of audio in memory: {seconds * 48000 * 4 / _MB:.1f} "
            f"MB a stream at 48000 Hz, of at most {_MOST_STREAMS} streams"
        )

    def open(self) -> None:
        """Make the folder and count what is in it; raises ConfigError."""
        self._store.open()
        self._look()

    def write(self, message: Message) -> None:
        """Remember audio and what is said of it; write the clips that are complete."""
        stream = self._stream(message.info.stream)
        event = message.event
        if not isinstance(event, Block | Withheld):
            stream.note(event, message)
            return
        rate = message.info.sample_rate
        if stream.rate not in (0, rate):  # the same name, another stream
            stream = self._stream(message.info.stream, anew=True)
        stream.hear(event, rate)
        self._finish(stream, stream.due(event.start))
        self._retry()

    def flush(self, timeout: float) -> None:
        """Nothing to do: a clip is on the disk as soon as it is written."""

    def close(self) -> None:
        """Write the clips of which the end has not been heard."""
        while self._streams:
            self._end(next(iter(self._streams)))
        if self._refused != self._refused_told:
            more = self._refused - self._refused_told
            log.warning("%d clips were not written to '%s'", more, self._store.folder)
            self._refused_told = self._refused

    def stats(self) -> dict[str, object]:
        """What was written, and what was not, and why."""
        return {
            "clips": self._written,
            "incomplete": self._incomplete,
            "refused": self._refused,
            "without_audio": self._empty,
            "removed": self._store.removed,
            "files": self._store.files,
            "mb": round(self._store.size / _MB, 3),
            "trouble": self._trouble,
        }

    def _stream(self, name: str, *, anew: bool = False) -> ClipStream:
        if anew:
            self._end(name)
        stream = self._streams.pop(name, None)
        if stream is None:
            while len(self._streams) >= _MOST_STREAMS:
                self._end(next(iter(self._streams)))
            stream = ClipStream(name, self._lengths)
            self._choices.setdefault(name, Choice(self._options.select))
        self._streams[name] = stream
        return stream

    def _end(self, name: str) -> None:
        stream = self._streams.pop(name)
        self._finish(stream, stream.rest())
        self._choices.pop(name)

    def _finish(self, stream: ClipStream, pieces: Iterable[ClipSpan]) -> None:
        for piece in pieces:
            if self._choices[stream.name].takes(piece):
                self._write_clip(stream, piece)

    def _write_clip(self, stream: ClipStream, piece: ClipSpan) -> None:
        if not stream.rate:  # no audio has ever come
            self._empty += 1
            return
        extent = stream.extent(piece)
        samples, missing = stream.read(extent)
        if sum(m.stop - m.start for m in missing) >= len(samples):
            self._empty += 1
            return
        stem, told = stream.sidecar(piece, extent, missing, self._run)
        path = stem.with_name(f"{stem.name}.{self._options.format}")
        content = json.dumps({"audio": path.name, **told}, indent=1).encode() + b"\n"
        audio = encoded(samples, stream.rate, self._options.format)
        try:
            self._store.write(path, audio, content)
        except (NoRoom, OSError) as error:
            self._refused += 1
            self._fail(error)
            return
        self._all_is_well()
        self._written += 1
        self._incomplete += bool(missing)

    def _retry(self) -> None:
        """While the disk takes nothing: look now and then whether it would again."""
        if not self._trouble:
            return
        if self._clock.monotonic_ns() - self._looked_ns >= _RETRY_NS:
            self._look()

    def _look(self) -> None:
        self._looked_ns = self._clock.monotonic_ns()
        try:
            self._store.probe()
        except (NoRoom, OSError) as error:
            self._fail(error)
        else:
            self._all_is_well()

    def _fail(self, error: Exception) -> None:
        """No clip is taken; the log has the first such moment, health each."""
        before, self._trouble = self._trouble, self._sentence(error)
        if not before:
            log.warning("%s", self._trouble)

    def _all_is_well(self) -> None:
        """Clips are taken again; that their folder was deleted is told for a while."""
        if self._deleted != self._store.deleted:
            self._deleted = self._store.deleted
            self._told_ns = self._clock.monotonic_ns()
            folder = self._store.folder
            self._trouble = f"'{folder}' was deleted, with its clips, and made again"
        elif self._clock.monotonic_ns() - self._told_ns >= _RETRY_NS:
            if self._trouble:
                log.warning("clips are written to '%s' again", self._store.folder)
            self._trouble = ""

    def _sentence(self, error: Exception) -> str:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"'{self._store.folder}': {error.strerror}"
        return f"no clips are written, labels go on: {reason}"


def _lengths(options: ClipsOptions) -> Lengths:
    return Lengths(
        ring=options.ring_s,
        longest=options.longest_s,
        pre_roll=options.pre_roll_s,
        post_roll=options.post_roll_s,
        settle=_SETTLE_S,
        bout_gap=options.bout_gap_s if options.what == "bout" else None,
    )


def _limits(options: ClipsOptions) -> Limits:
    return Limits(
        None if options.max_mb is None else round(options.max_mb * _MB),
        options.max_files,
        round(options.min_free_mb * _MB),
        options.when_full == "remove_oldest",
    )


def _build(options: ClipsOptions, context: BuildContext) -> ClipsSink:
    return ClipsSink(options, context.run, context.clock)


def _claims(options: ClipsOptions) -> frozenset[str]:
    return frozenset({f"folder:{Path(options.path).expanduser().resolve()}"})


def _unheard(options: ClipsOptions, lanes: Sequence[BuildContext]) -> Iterator[str]:
    return never_passed(options.select, lanes)


plugin = Plugin(
    kind="sink",
    options=ClipsOptions,
    build=_build,
    summary="Keeps the sound of segments or bouts, with labels, within quotas",
    resources=_claims,
    check=lambda options, context: folder_problems(options.path),
    check_lanes=_unheard,
)
