"""Write clips: the audio of selected segments or bouts, with labels."""

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from neurovocal.engine import (
    NS,
    Block,
    BuildContext,
    Clock,
    Message,
    Options,
    Plugin,
    Withheld,
)
from neurovocal.engine.contracts.options import MOST_COUNT, MOST_MB
from neurovocal.engine.support.names import at_home
from neurovocal.plugins.sinks.clips.selection import (
    ClipSpan,
    SegmentSelection,
    SelectOptions,
    unsatisfiable_rules,
)
from neurovocal.plugins.sinks.clips.store import (
    ClipQuotas,
    ClipStore,
    NoSpaceError,
    QuotaError,
)
from neurovocal.plugins.sinks.clips.stream import ClipStream, Lengths, encode_audio
from neurovocal.plugins.storage.folder import (
    folder_access,
    folder_claim,
    folder_problems,
)

log = logging.getLogger("neurovocal")

_MB = 1_000_000
# Labels come at most so long after the offset.
_LABEL_WAIT_S = 1.0
# The engine passes audio on in blocks of at most a second; the ring must cover them.
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
    max_mb: float | None = Field(default=None, gt=0, le=MOST_MB)
    """Megabytes that all clips in the folder may take; null: no limit."""
    max_files: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    """Clips that the folder may hold; null: no limit."""
    when_full: Literal["remove_oldest", "stop"] = "remove_oldest"
    """What happens at `max_mb` or `max_files`."""
    min_free_mb: float = Field(default=500.0, ge=0, le=MOST_MB)
    """Megabytes that stay free on the disk: below, no clip is written, and health
    says so, until there is room again."""

    @property
    def ring_s(self) -> float:
        """Seconds of audio that are kept in memory for each stream."""
        rolls_s = self.pre_roll_s + self.post_roll_s
        gap_s = self.bout_gap_s if self.what == "bout" else 0.0
        return self.longest_s + rolls_s + gap_s + 2 * _LABEL_WAIT_S + _SLACK_S


class ClipsSink:
    """Writes the audio around selected segments, with a sidecar that describes it.

    Parameters
    ----------
    options : ClipsOptions
        Checked options.
    run : str
        Name of the run, for the sidecars.
    clock : Clock
        Monotonic time, for the pause between two checks of a full disk.
    store : ClipStore, optional
        Folder of the clips; by default that of the options.
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
        self._store = store or ClipStore(at_home(options.path), _quotas(options))
        self._streams: dict[str, ClipStream] = {}  # the least recently used first
        self._selections: dict[str, SegmentSelection] = {}
        self._lengths = _lengths(options)
        self._not_taken: set[str] = set()  # streams of which the disk lacks clips
        self._trouble = ""
        self._checked_ns = 0
        self._deleted = 0
        self._deletion_ns = -_RETRY_NS  # when a deletion of the folder was found
        self._written = self._incomplete = self._refused = self._empty = 0

    @property
    def trouble(self) -> str | None:
        """Reason why no clips are written now; the engine publishes it as health."""
        return self._trouble or None

    def describe(self) -> Iterator[str]:
        """Yield a sentence on the memory of a run; ``neurovocal check`` prints it."""
        seconds = self._options.ring_s
        yield (
            f"keeps {seconds:g} s of audio in memory: {seconds * 48000 * 4 / _MB:.1f} "
            f"MB a stream at 48000 Hz, of at most {_MOST_STREAMS} streams"
        )

    def open(self) -> None:
        """Make the folder and count its clips; raise ConfigError if that fails."""
        self._store.open()
        self._check_store()

    def write(self, message: Message) -> None:
        """Keep audio and events of a stream; write the clips that are complete."""
        stream = self._stream(message.info.stream)
        event = message.event
        if not isinstance(event, Block | Withheld):
            stream.add_event(event, message)
            return
        rate = message.info.sample_rate
        if stream.rate not in (0, rate):  # the same name, another stream
            self._end(message.info.stream)
            stream = self._stream(message.info.stream)
        stream.add_audio(event, rate)
        self._finish(stream, stream.pop_complete(event.start))
        self._retry()

    def flush(self, timeout: float) -> None:
        """Do nothing: a clip is on the disk as soon as it is written."""

    def end_stream(self, stream: str) -> bool:
        """Write the clips without a complete post-roll; False if a disk took not all.

        Clips that quotas of the user's own do not allow are not missed.
        """
        if stream in self._streams:
            self._end(stream)
        is_complete = stream not in self._not_taken
        self._not_taken.discard(stream)
        return is_complete

    def close(self) -> None:
        """Write the clips with an incomplete post-roll."""
        try:
            while self._streams:
                self._end(next(iter(self._streams)))
        finally:
            self._store.close()

    @property
    def losses(self) -> str | None:
        """Number of clips that were not written in this run, in a sentence."""
        if not self._refused:
            return None
        s = "" if self._refused == 1 else "s"
        return f"{self._refused} clip{s} could not be written to '{self._store.folder}'"

    def stats(self) -> dict[str, object]:
        """Return counts of written, incomplete, refused and removed clips."""
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

    def _stream(self, name: str) -> ClipStream:
        stream = self._streams.pop(name, None)
        if stream is None:
            while len(self._streams) >= _MOST_STREAMS:
                self._end(next(iter(self._streams)))
            stream = ClipStream(name, self._lengths)
            self._selections.setdefault(name, SegmentSelection(self._options.select))
        self._streams[name] = stream
        return stream

    def _end(self, name: str) -> None:
        stream = self._streams.pop(name)
        self._finish(stream, stream.pop_all())
        self._selections.pop(name)

    def _finish(self, stream: ClipStream, spans: Iterable[ClipSpan]) -> None:
        for span in spans:
            if self._selections[stream.name].accepts(span):
                self._write_clip(stream, span)

    def _write_clip(self, stream: ClipStream, span: ClipSpan) -> None:
        if not stream.rate:  # no audio has ever come
            self._empty += 1
            return
        extent = stream.extent(span)
        samples, missing = stream.read(extent)
        if sum(m.stop - m.start for m in missing) >= len(samples):
            self._empty += 1
            return
        stem, description = stream.sidecar(span, extent, missing, self._run)
        path = stem.with_name(f"{stem.name}.{self._options.format}")
        content = (
            json.dumps({"audio": path.name, **description}, indent=1).encode() + b"\n"
        )
        audio = encode_audio(samples, stream.rate, self._options.format)
        try:
            self._store.write(path, audio, content)
        except (QuotaError, OSError) as error:
            self._refused += 1
            if isinstance(error, OSError | NoSpaceError):
                self._not_taken.add(stream.name)
            self._fail(error)
            return
        self._recover()
        self._written += 1
        self._incomplete += bool(missing)

    def _retry(self) -> None:
        """Check the disk from time to time while it takes no clips."""
        if not self._trouble:
            return
        if self._clock.monotonic_ns() - self._checked_ns >= _RETRY_NS:
            self._check_store()

    def _check_store(self) -> None:
        self._checked_ns = self._clock.monotonic_ns()
        try:
            self._store.probe()
        except (QuotaError, OSError) as error:
            self._fail(error)
        else:
            self._recover()

    def _fail(self, error: Exception) -> None:
        """Note why no clip can be written; log it the first time."""
        before, self._trouble = self._trouble, self._sentence(error)
        if not before:
            log.warning("%s", self._trouble)

    def _recover(self) -> None:
        """Note that clips can be written; report a deleted folder for a while."""
        if self._deleted != self._store.deleted:
            self._deleted = self._store.deleted
            self._deletion_ns = self._clock.monotonic_ns()
            folder = self._store.folder
            self._trouble = f"'{folder}' was deleted, with its clips, and made again"
        elif self._clock.monotonic_ns() - self._deletion_ns >= _RETRY_NS:
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
        ring_s=options.ring_s,
        longest_s=options.longest_s,
        pre_roll_s=options.pre_roll_s,
        post_roll_s=options.post_roll_s,
        label_wait_s=_LABEL_WAIT_S,
        bout_gap_s=options.bout_gap_s if options.what == "bout" else None,
    )


def _quotas(options: ClipsOptions) -> ClipQuotas:
    return ClipQuotas(
        None if options.max_mb is None else round(options.max_mb * _MB),
        options.max_files,
        round(options.min_free_mb * _MB),
        options.when_full == "remove_oldest",
    )


def _build(options: ClipsOptions, context: BuildContext) -> ClipsSink:
    return ClipsSink(options, context.run, context.clock)


plugin = Plugin(
    kind="sink",
    options=ClipsOptions,
    build=_build,
    summary="Keeps the sound of segments or bouts, with labels, within quotas",
    resources=lambda options: folder_claim(options.path),
    check=lambda options, context: folder_problems(options.path),
    writes=lambda options, context: folder_access(
        options.path, "*/*/*.flac", "*/*/*.wav", "*/*/*.json"
    ),
    check_lanes=lambda options, lanes: unsatisfiable_rules(options.select, lanes),
)
