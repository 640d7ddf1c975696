"""Source that reads each finished recording of a folder once."""

import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from pydantic import Field

from neurovocal.engine import (
    NS,
    Anchor,
    AudioFileError,
    Block,
    BuildContext,
    Channels,
    ConfigError,
    EndOfStream,
    FileAccess,
    Gap,
    Health,
    Options,
    Plugin,
    SourceItem,
    StreamEnd,
    StreamInfo,
    channels_problem,
    finite_items,
)
from neurovocal.engine.audio.non_finite import JoinedGaps, ShortRuns
from neurovocal.engine.contracts.options import DAY_S, ChannelNumber, OptionProblem
from neurovocal.engine.contracts.types import SOURCE_STAGE
from neurovocal.engine.journal.repeats import repeat_sentence, replacement_sentence
from neurovocal.engine.support.names import resolved
from neurovocal.engine.support.text import plain, plain_name
from neurovocal.plugins.sources.audio_files.file import (
    SUFFIXES,
    Recording,
    RecordingHeader,
    channel_problem,
)
from neurovocal.plugins.sources.audio_files.selection import (
    doubtful_starts,
    expanded,
    noted,
)
from neurovocal.plugins.sources.audio_files.start_time import TimeZone, zone_of
from neurovocal.plugins.sources.folder.health import FolderHealth
from neurovocal.plugins.sources.folder.scanner import FinishedFile, FolderScanner
from neurovocal.plugins.sources.folder.state import (
    ProcessedFiles,
    can_be_read,
    fingerprint,
)

log = logging.getLogger("neurovocal")

STATE = ".neurovocal-taken.jsonl"
_BLOCK_LENGTH = 8192
_MOST_RUNS = 16  # kept in the state of a recording that they began
_ATTEMPTS = 3  # to read a recording despite errors of the disk


class FolderOptions(Options):
    """Options of the ``folder`` source."""

    path: str
    """Folder into which recorders write."""
    recursive: bool = False
    """Whether folders inside it are searched, too."""
    state: str | None = None
    """State file with the recordings read; by default `.neurovocal-taken.jsonl` in
    the folder itself."""
    set_aside: str | None = None
    """Folder to move recordings to that cannot be used; by default they stay where
    they are, and are not looked at again before they change."""
    follow: bool = True
    """Wait for more for ever; false: end when all that is there has been taken."""
    settle_s: float = Field(default=5.0, ge=0, le=DAY_S)
    """Seconds without a change after which a recording is finished: longer than the
    recorder's pauses between two writes."""
    partial_s: float = Field(default=60.0, ge=0, le=DAY_S)
    """Seconds without a change after which a file is finished if its header has another
    length than there is, as that of a file which is being written or copied does;
    one that is no recording is set aside then."""
    poll_s: float = Field(default=1.0, ge=0.01, le=DAY_S)
    """Seconds between two looks into the folder."""
    confirm_s: float = Field(default=2.0, ge=0, le=DAY_S)
    """Seconds after its last sample, at least, at which a recording counts as taken:
    one that changes until then is heard again. It never counts as taken before all
    sinks that keep events have brought those of it to their disks."""
    channels: list[ChannelNumber] = [1]
    """Channels to use, counted from 1. Each is labelled by itself unless `mix`
    is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    timezone: TimeZone = None
    """Zone of times in metadata and names that do not say theirs, such as
    `Europe/Berlin`, `UTC` or `+02:00`; by default such times are not believed."""


@dataclass(slots=True)
class _Unconfirmed:
    """Recording that was read; its events may not be safe yet."""

    read_ns: int  # when its last sample was read
    file: FinishedFile
    problem: str | None
    digest: str
    is_confirmed: bool = False


class _LeftOutError(Exception):
    """The recording that is being read cannot be processed."""


class FolderSource:
    """Source that reads finished recordings in order of time and drops nothing.

    A recording that was being read when the engine was killed is read again as a whole,
    and a health event says so: its events of the previous run belong to that run.

    Attributes
    ----------
    failures : list of str
        A sentence for each recording that was set aside or is damaged, unless the
        source follows the folder without end.
    """

    live = False
    resumes = True

    def __init__(self, options: FolderOptions, context: BuildContext) -> None:
        self._options = options
        self._clock = context.clock
        self._run = context.run
        self._folder = context.path(options.path)
        # What cannot be processed with one configuration may be with another.
        digest = blake2b(context.config_text.encode(), digest_size=6).hexdigest()
        self._for = {"configuration": digest}
        self._left_out: str | None = None
        self._processed = ProcessedFiles(_state_path(options, context), digest)
        self._channels = Channels(options.channels, options.mix)
        self._zone = zone_of(options.timezone) if options.timezone else None
        self._info: StreamInfo | None = None
        self._items: Iterator[SourceItem | None] = iter(())
        self._queue: deque[FinishedFile] = deque()
        self._unconfirmed: dict[StreamEnd, _Unconfirmed] = {}
        self._not_kept: set[str] = set()  # files of which a sink has lost events
        self._retries: dict[str, tuple[int, int]] = {}  # attempts; time of the next
        self._recording: Recording | None = None
        self._warned_of_start = False  # that a start time is not used
        self._health = FolderHealth(endless=options.follow)
        self.failures = self._health.failures

    @property
    def info(self) -> StreamInfo:
        """The recording that is being read."""
        if self._info is None:
            raise RuntimeError("a folder source knows its stream once one has begun")
        return self._info

    def open(self) -> None:
        """Open the state file and prepare the first scan.

        Raises
        ------
        ConfigError
            The folder does not exist, or its state file cannot be used.
        """
        self.close()
        if not os.path.isdir(self._folder):
            raise ConfigError(f"folder '{self._options.path}' does not exist")
        self._processed.open()
        options = self._options
        self._scanner = FolderScanner(
            self._folder,
            options.recursive,
            options.settle_s,
            options.partial_s,
            self._zone,
            self._clock,
        )
        self._info = None
        self._next_scan_ns = self._clock.monotonic_ns()
        self._queue.clear()
        self._unconfirmed.clear()
        self._not_kept.clear()
        self._health.reset()
        self._empty = False
        self._items = self._all_items()

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item, or None while there is no finished recording."""
        self._mark_taken(round(self._options.confirm_s * NS))
        if (event := self._health.next()) is not None:
            return event
        item = next(self._items, None)
        if isinstance(item, StreamInfo):
            self._info = item
        if item is None and (event := self._health.next()) is not None:
            return event
        if item is None and not self._options.follow and self._is_empty():
            self._items = iter(())
            self.failures += self._scanner.unreadable.values()
            raise EndOfStream
        if item is None and self._recording is None:
            self._clock.wait_until(self._next_scan_ns, timeout)
        return item

    def leave_out(self, stream: str, reason: str) -> bool:
        """Set a recording aside that cannot be processed with this configuration."""
        for end, waiting in list(self._unconfirmed.items()):
            if plain_name(waiting.file.name) == stream:  # its last steps have failed
                del self._unconfirmed[end]
                path = waiting.file.path
                self._set_aside(waiting.file, f"'{path}': {reason}", **self._for)
                return True
        self._left_out = reason
        return True

    def close(self) -> None:
        """Close; recordings that were read and confirmed count as finished."""
        self._items = iter(())
        self._mark_taken(0)
        self._tell_what_is_heard_again()
        self._processed.close()
        if self._recording is not None:
            self._recording.close()
            self._recording = None

    def _tell_what_is_heard_again(self) -> None:
        """Log what nobody reads any more: sinks are closed before their last commits.

        That is recordings of which a sink has lost events, or has committed none.
        """
        while (event := self._health.next()) is not None:
            if event.state == "lossy":
                log.warning("%s", event.detail)
        for waiting in self._unconfirmed.values():
            if not waiting.is_confirmed:
                log.warning("%s", plain(_not_kept_sentence(waiting.file)))
        self._unconfirmed.clear()

    def confirm(self, end: StreamEnd, kept: bool) -> None:
        """Let a recording count as taken, unless a sink has lost events of it."""
        waiting = self._unconfirmed.get(end)
        if waiting is None:
            return
        if kept:
            waiting.is_confirmed = True
            return
        del self._unconfirmed[end]
        self._not_kept.add(waiting.file.name)
        self._health.report("lossy", _not_kept_sentence(waiting.file))

    def _is_empty(self) -> bool:
        return self._empty and not self._scanner.growing and not self._retries

    def _all_items(self) -> Iterator[SourceItem | None]:
        """Yield all items without end, and None while there is nothing to read."""
        while True:
            self._scan()
            if not self._queue:
                yield None
                continue
            file = self._queue.popleft()
            if not file.is_unchanged:
                continue  # the next scan inspects it
            if file.header is None:
                self._set_aside(file, file.problem or "it is unusable")
            elif lack := channel_problem(file.header, self._options.channels):
                self._set_aside(file, lack)
            else:
                yield from self._read(file, file.header)

    def _scan(self) -> None:
        """Scan the folder if a scan is due."""
        now = self._clock.monotonic_ns()
        if now < self._next_scan_ns:
            return
        self._next_scan_ns = now + round(self._options.poll_s * NS)
        if os.path.isdir(self._folder):
            self._health.update("state", self._processed.save())
        try:
            found = self._scanner.scan(self._processed)
        except OSError as error:
            reason = f"folder '{self._folder}' cannot be read: {error.strerror}"
            self._health.update("folder", f"{reason}; it is tried again")
            self._queue.clear()
            return
        self._health.update("folder", None)
        unreadable = self._scanner.unreadable
        self._health.update("content", _summary(list(unreadable.values())))
        if self._scanner.is_busy:
            self._next_scan_ns = now
            return
        waiting = {each.file.name for each in self._unconfirmed.values()}
        waiting |= self._not_kept
        waiting |= {name for name, (_, due) in self._retries.items() if now < due}
        self._queue = deque(file for file in found if file.name not in waiting)
        self._empty = not self._queue

    def _read(
        self, file: FinishedFile, header: RecordingHeader
    ) -> Iterator[SourceItem]:
        """Yield the items of one recording, which is a stream of its own."""
        end = StreamEnd()
        yield from self._read_until(end, file, header)
        yield end

    def _read_until(
        self, end: StreamEnd, file: FinishedFile, header: RecordingHeader
    ) -> Iterator[SourceItem]:
        recording = self._recording = Recording(header)
        problem, digest = None, ""
        self._left_out = None
        channels = self._channels
        yield StreamInfo(
            plain_name(file.name),
            header.sample_rate,
            channels.count,
            channels.numbers,
            header.duration_s,
        )
        self._warn_of_start(header)
        try:
            self._require_wanted()
            digest = fingerprint(file.path, file.stat.st_size)
            yield from self._begin(file, digest)
            if header.start.utc_ns is not None:
                yield Anchor(0, header.start.utc_ns)
            recording.open()
            runs = ShortRuns(header.sample_rate, channels.numbers)
            yield from self._samples(recording, runs)
            if runs.sentence is not None:
                sentence = f"'{file.path}': {runs.sentence}"
                yield Health(SOURCE_STAGE, "healthy", sentence)
            for sentence in noted([header]):
                yield Health(SOURCE_STAGE, "healthy", plain(sentence))
            problem = recording.problem
        except _LeftOutError as error:
            self._set_aside(file, f"'{file.path}': {error}", **self._for)
            return
        except (AudioFileError, OSError) as error:
            problem = str(error)
        finally:
            recording.close()
            self._recording = None
        if problem is not None and not os.path.exists(file.path):
            self._health.report(
                "lossy", f"{problem}; it is heard again when it is back"
            )
            return
        if problem is not None and self._disk_failed(file):
            self._health.report(
                "lossy", f"{problem}; the disk failed, it is heard again"
            )
            return
        self._retries.pop(file.name, None)
        if problem is not None:
            self._health.fail(problem)
        else:
            again = "recordings can be used again"
            self._health.succeed(f"{again}: '{file.path}' was")
        now = self._clock.monotonic_ns()
        self._unconfirmed[end] = _Unconfirmed(now, file, problem, digest)
        while (event := self._health.next()) is not None:
            yield event  # in this recording's stream

    def _warn_of_start(self, header: RecordingHeader) -> None:
        """Log once that a start time or rate is not used; others will be alike."""
        sentences = [*doubtful_starts([header]), *expanded([header])]
        for sentence in () if self._warned_of_start else sentences:
            self._warned_of_start = True
            log.warning("%s", plain(sentence))

    def _begin(self, file: FinishedFile, digest: str) -> Iterator[Health]:
        """Record that this run begins the file; report a repeated or new content."""
        path, name, run = file.path, file.name, self._run
        runs = self._processed.started_by(name, digest)
        name_was_used = self._processed.is_new_file(name, digest)
        if runs:
            sentence = repeat_sentence(path, runs, name_was_used=name_was_used)
            yield Health(SOURCE_STAGE, "recovering", sentence)
        elif name_was_used:
            yield Health(SOURCE_STAGE, "healthy", replacement_sentence(path))
        more = {
            "run": run,
            "runs": [*(one for one in runs if one != run), run][-_MOST_RUNS:],
            "print": digest,
            "name was used": name_was_used or None,
        }
        problem = self._processed.add(name, file.stat, "begun", **more)
        self._health.update("state", problem)

    def _disk_failed(self, file: FinishedFile) -> bool:
        """Return True, and schedule a retry, if the disk cannot read the file."""
        attempts, _ = self._retries.get(file.name, (0, 0))
        if attempts >= _ATTEMPTS or can_be_read(file.path):
            return False
        due = self._clock.monotonic_ns() + round(self._options.partial_s * NS)
        self._retries[file.name] = (attempts + 1, due)
        return True

    def _samples(self, recording: Recording, runs: ShortRuns) -> Iterator[Block | Gap]:
        position, gaps = 0, JoinedGaps(recording.header.sample_rate)
        while len(read := recording.read(_BLOCK_LENGTH)):
            samples = runs.process(self._channels.pick(read))
            for item in gaps.process(finite_items(position, samples)):
                yield item
                self._require_wanted()
            position += len(samples)
        if (rest := runs.flush()) is not None:
            yield from gaps.process(finite_items(position, rest))
        yield from gaps.flush()

    def _require_wanted(self) -> None:
        if self._left_out is not None:
            raise _LeftOutError(self._left_out)

    def _set_aside(self, file: FinishedFile, problem: str, **more: str) -> None:
        """Mark a file as unusable, and move it if the options say so."""
        self._processed.add(file.name, file.stat, "set aside", reason=problem, **more)
        if self._options.set_aside is not None:
            target = Path(self._options.set_aside) / file.name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    raise FileExistsError(0, "there is one of this name")
                shutil.move(file.path, target)
            except OSError as error:
                problem += f" (and cannot be moved: {error.strerror or error})"
        self._health.fail(f"set aside: {problem}")

    def _mark_taken(self, age_ns: int) -> None:
        """Mark confirmed recordings as finished that were read `age_ns` ago."""
        now = self._clock.monotonic_ns()
        for end, waiting in list(self._unconfirmed.items()):
            if not waiting.is_confirmed or now - waiting.read_ns < age_ns:
                continue
            del self._unconfirmed[end]
            file, problem, digest = waiting.file, waiting.problem, waiting.digest
            if self._has_changed(file, digest):
                self._health.fail(
                    f"'{file.path}' has changed after it was finished: it is heard "
                    "again (make settle_s longer than the writer's pauses)"
                )
                continue
            more = {"print": digest or None, "reason": problem}
            problem = self._processed.add(file.name, file.stat, "taken", **more)
            self._health.update("state", problem)

    def _has_changed(self, file: FinishedFile, digest: str) -> bool:
        """Return True if the content has changed; False if the file was removed."""
        try:
            size = file.path.stat().st_size
            if file.is_unchanged or size != file.stat.st_size:
                return not file.is_unchanged
            return fingerprint(file.path, size) != digest
        except OSError:
            return False


def _not_kept_sentence(file: FinishedFile) -> str:
    return (
        f"a sink has lost events of '{file.path}': it is heard again at the next start"
    )


def _summary(sentences: list[str]) -> str | None:
    """Return the first sentence with the number of others, or None without any."""
    if not sentences:
        return None
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return f"{min(sentences)}{more}; it is tried again"


def _state_path(options: FolderOptions, context: BuildContext) -> Path:
    folder = context.path(options.path)
    return folder / STATE if options.state is None else Path(options.state)


def _check(options: FolderOptions, context: BuildContext) -> Iterator[str]:
    folder = context.path(options.path)
    if not folder.is_dir():
        yield OptionProblem(
            "path",
            f"folder '{options.path}' does not exist: make it or correct the name",
        )
    problem = channels_problem(options.channels)
    if problem:
        yield problem
    if options.set_aside is not None:
        aside = resolved(Path(options.set_aside))
        if aside == resolved(folder) or (
            options.recursive and resolved(folder) in aside.parents
        ):
            yield OptionProblem(
                "set_aside",
                "name a folder that is not itself searched for recordings",
            )


def _resources(options: FolderOptions) -> frozenset[str]:
    claims = [f"folder:{resolved(Path(options.path))}"]
    if options.state is not None:
        claims.append(f"file:{resolved(Path(options.state))}")
    if options.set_aside is not None:
        claims.append(f"folder:{resolved(Path(options.set_aside))}")
    return frozenset(claims)


def _reads(options: FolderOptions, context: BuildContext) -> list[FileAccess]:
    depth = "**/" if options.recursive else ""
    patterns = tuple(f"{depth}*{suffix}" for suffix in sorted(SUFFIXES))
    folder = FileAccess(context.path(options.path), patterns)
    return [folder, *_writes(options, context)]


def _writes(options: FolderOptions, context: BuildContext) -> list[FileAccess]:
    return [FileAccess(_state_path(options, context))]


def _build(options: FolderOptions, context: BuildContext) -> FolderSource:
    return FolderSource(options, context)


plugin = Plugin(
    kind="source",
    options=FolderOptions,
    build=_build,
    summary="A folder that recorders fill: each finished recording once",
    resources=_resources,
    check=_check,
    reads=_reads,
    writes=_writes,
)
