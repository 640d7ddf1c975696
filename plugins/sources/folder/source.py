"""A folder that recorders fill, as a source: each recording is heard once."""

import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from neurovocal.engine.audio.channels import Channels, channels_problem, finite_items
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import AudioFileError, ConfigError, EndOfStream
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.stages import SourceItem
from neurovocal.engine.contracts.types import (
    SOURCE_STAGE,
    Anchor,
    Block,
    Gap,
    Health,
    StreamInfo,
)
from neurovocal.engine.journal.repeats import heard_again, other_recording
from neurovocal.plugins.sources.audio_files.file import (
    Header,
    Recording,
    channel_problem,
)
from neurovocal.plugins.sources.audio_files.selection import doubtful_starts
from neurovocal.plugins.sources.audio_files.start_time import TimeZone, zone_of
from neurovocal.plugins.sources.folder.health import FolderHealth
from neurovocal.plugins.sources.folder.scanner import Arrival, Arrivals
from neurovocal.plugins.sources.folder.state import (
    ProcessedFiles,
    can_be_read,
    fingerprint,
)

log = logging.getLogger("neurovocal")

STATE = ".neurovocal-taken.jsonl"
_BLOCK_LENGTH = 8192
_MOST_RUNS = 16  # that are remembered to have begun one recording
_ATTEMPTS = 3  # at a recording that the disk does not give


class FolderOptions(Options):
    """Options of the ``folder`` source."""

    path: str
    """Folder into which recorders write."""
    recursive: bool = False
    """Whether folders inside it are searched, too."""
    state: str | None = None
    """File that remembers what was taken; by default `.neurovocal-taken.jsonl` in
    the folder itself."""
    set_aside: str | None = None
    """Folder to move recordings to that cannot be used; by default they stay where
    they are, and are not looked at again before they change."""
    follow: bool = True
    """Wait for more for ever; false: end when all that is there has been taken."""
    settle_s: float = Field(default=5.0, ge=0)
    """Seconds without a change after which a recording is finished: longer than the
    recorder's pauses between two writes."""
    partial_s: float = Field(default=60.0, ge=0)
    """Seconds without a change after which one that is incomplete, or is none, is
    set aside."""
    poll_s: float = Field(default=1.0, gt=0)
    """Seconds between two looks into the folder."""
    confirm_s: float = Field(default=2.0, ge=0)
    """Seconds after its last sample at which a recording counts as taken: sinks must
    have written what came of it by then."""
    channels: list[int] = [1]
    """Channels to use, counted from 1. Each is labelled by itself unless `mix`
    is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    timezone: TimeZone = None
    """Zone of times in metadata and names that do not say theirs, such as
    `Europe/Berlin`, `UTC` or `+02:00`; by default such times are not believed."""


class FolderSource:
    """Takes finished recordings in the order of time; nothing is ever dropped.

    A recording that was being read when the engine was killed is read again, whole,
    and that is told: nothing is left out, and its events of the run before are of
    another run.

    Attributes
    ----------
    failures : list of str
        Recordings that were set aside or are damaged; when it ends by itself.
    """

    live = False
    resumes = True

    def __init__(self, options: FolderOptions, context: BuildContext) -> None:
        self._options = options
        self._clock = context.clock
        self._run = context.run
        self._folder = context.path(options.path)
        self._taken = ProcessedFiles(_state_path(options, context))
        self._channels = Channels(options.channels, options.mix)
        self._zone = zone_of(options.timezone) if options.timezone else None
        self._info: StreamInfo | None = None
        self._items: Iterator[SourceItem | None] = iter(())
        self._queue: deque[Arrival] = deque()
        self._unconfirmed: deque[tuple[int, Arrival, str | None, str]] = deque()
        self._later: dict[str, tuple[int, int]] = {}  # attempts; when the next is due
        self._recording: Recording | None = None
        self._doubted = False  # whether it was said that a start is not believed
        self._health = FolderHealth(endless=options.follow)
        self.failures = self._health.failures

    @property
    def info(self) -> StreamInfo:
        """The recording that is being read."""
        if self._info is None:
            raise RuntimeError("a folder source knows its stream once one has begun")
        return self._info

    def open(self) -> None:
        """Read what was taken before.

        Raises
        ------
        ConfigError
            The folder is not there, or its state cannot be kept.
        """
        self.close()
        if not os.path.isdir(self._folder):
            raise ConfigError(f"folder '{self._options.path}' does not exist")
        self._taken.open()
        options = self._options
        self._arrivals = Arrivals(
            self._folder,
            options.recursive,
            options.settle_s,
            options.partial_s,
            self._zone,
            self._clock,
        )
        self._info = None
        self._next_look_ns = self._clock.monotonic_ns()
        self._queue.clear()
        self._health.forget()
        self._empty = False
        self._items = self._play()

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item; None while no finished recording is there."""
        self._confirm(round(self._options.confirm_s * NS))
        if (told := self._health.next()) is not None:
            return told
        item = next(self._items, None)
        if isinstance(item, StreamInfo):
            self._info = item
        if item is None and (told := self._health.next()) is not None:
            return told
        if item is None and not self._options.follow and self._is_empty():
            self._items = iter(())
            self._confirm(0)
            self.failures += self._arrivals.unreadable.values()
            raise EndOfStream
        if item is None and self._recording is None:
            self._clock.wait_until(self._next_look_ns, timeout)
        return item

    def close(self) -> None:
        """End; what was read to its end counts as taken."""
        self._items = iter(())
        self._confirm(0)
        self._taken.close()
        if self._recording is not None:
            self._recording.close()
            self._recording = None

    def _is_empty(self) -> bool:
        return self._empty and not self._arrivals.growing and not self._later

    def _play(self) -> Iterator[SourceItem | None]:
        """All items for ever; None whenever there is nothing to do."""
        while True:
            self._look()
            if not self._queue:
                yield None
                continue
            arrival = self._queue.popleft()
            if not arrival.is_unchanged:
                continue  # the next look finds out
            if arrival.header is None:
                self._put_aside(arrival, arrival.problem or "it is unusable")
            elif lack := channel_problem(arrival.header, self._options.channels):
                self._put_aside(arrival, lack)
            else:
                yield from self._hear(arrival, arrival.header)

    def _look(self) -> None:
        """See what there is, if it is time to look."""
        now = self._clock.monotonic_ns()
        if now < self._next_look_ns:
            return
        self._next_look_ns = now + round(self._options.poll_s * NS)
        if os.path.isdir(self._folder):
            self._health.watch("state", self._taken.save())
        try:
            found = self._arrivals.look(self._taken)
        except OSError as error:
            reason = f"folder '{self._folder}' cannot be read: {error.strerror}"
            self._health.watch("folder", f"{reason}; it is tried again")
            self._queue.clear()
            return
        self._health.watch("folder", None)
        unreadable = self._arrivals.unreadable
        self._health.watch("content", _some(list(unreadable.values())))
        if self._arrivals.busy:
            self._next_look_ns = now
            return
        waiting = {arrival.name for _, arrival, _, _ in self._unconfirmed}
        waiting |= {name for name, (_, due) in self._later.items() if now < due}
        self._queue = deque(a for a in found if a.name not in waiting)
        self._empty = not self._queue

    def _hear(self, arrival: Arrival, header: Header) -> Iterator[SourceItem]:
        """One recording, as a stream of its own."""
        recording = self._recording = Recording(header)
        problem, print_ = None, ""
        yield StreamInfo(arrival.name, header.sample_rate, self._channels.count)
        self._doubt(header)
        try:
            print_ = fingerprint(arrival.path, arrival.stat.st_size)
            yield from self._begin(arrival, print_)
            if header.start.utc_ns is not None:
                yield Anchor(0, header.start.utc_ns)
            recording.open()
            yield from self._samples(recording)
            problem = recording.problem
        except (AudioFileError, OSError) as error:
            problem = str(error)
        finally:
            recording.close()
            self._recording = None
        if problem is not None and not os.path.exists(arrival.path):
            self._health.tell("lossy", f"{problem}; it is heard again when it is back")
            return
        if problem is not None and self._may_be_the_disk(arrival):
            self._health.tell("lossy", f"{problem}; the disk failed, it is heard again")
            return
        self._later.pop(arrival.name, None)
        if problem is not None:
            self._health.fail(problem)
        else:
            again = "recordings can be used again"
            self._health.succeed(f"{again}: '{arrival.path}' was")
        now = self._clock.monotonic_ns()
        self._unconfirmed.append((now, arrival, problem, print_))

    def _doubt(self, header: Header) -> None:
        """Say once that a start was found and is not believed: more will be alike."""
        for sentence in () if self._doubted else doubtful_starts([header]):
            self._doubted = True
            log.warning("%s", sentence)

    def _begin(self, arrival: Arrival, print_: str) -> Iterator[Health]:
        """Note who begins; a sentence, where what comes now has been heard before."""
        path, name, run = arrival.path, arrival.name, self._run
        runs = self._taken.begun_by(name, print_)
        name_was_used = self._taken.is_new_of_name(name, print_)
        if runs:
            sentence = heard_again(path, runs, name_was_used=name_was_used)
            yield Health(SOURCE_STAGE, "recovering", sentence)
        elif name_was_used:
            yield Health(SOURCE_STAGE, "healthy", other_recording(path))
        more = {
            "run": run,
            "runs": [*(one for one in runs if one != run), run][-_MOST_RUNS:],
            "print": print_,
            "name was used": name_was_used or None,
        }
        trouble = self._taken.add(name, arrival.stat, "begun", **more)
        self._health.watch("state", trouble)

    def _may_be_the_disk(self, arrival: Arrival) -> bool:
        """Whether a recording could not be read for another reason than its content."""
        attempts, _ = self._later.get(arrival.name, (0, 0))
        if attempts >= _ATTEMPTS or can_be_read(arrival.path):
            return False
        due = self._clock.monotonic_ns() + round(self._options.partial_s * NS)
        self._later[arrival.name] = (attempts + 1, due)
        return True

    def _samples(self, recording: Recording) -> Iterator[Block | Gap]:
        position = 0
        while len(read := recording.read(_BLOCK_LENGTH)):
            yield from finite_items(position, self._channels.pick(read))
            position += len(read)

    def _put_aside(self, arrival: Arrival, problem: str) -> None:
        """Remember that it is of no use, and move it if that is wanted."""
        self._taken.add(arrival.name, arrival.stat, "set aside", reason=problem)
        if self._options.set_aside is not None:
            target = Path(self._options.set_aside) / arrival.name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    raise FileExistsError(0, "there is one of this name")
                shutil.move(arrival.path, target)
            except OSError as error:
                problem += f" (and cannot be moved: {error.strerror or error})"
        self._health.fail(f"set aside: {problem}")

    def _confirm(self, age_ns: int) -> None:
        """Recordings whose last sample went out that long ago are taken."""
        now = self._clock.monotonic_ns()
        while self._unconfirmed and now - self._unconfirmed[0][0] >= age_ns:
            _, arrival, problem, print_ = self._unconfirmed.popleft()
            if self._has_changed(arrival, print_):
                self._health.fail(
                    f"'{arrival.path}' has changed after it was finished: it is heard "
                    "again (make settle_s longer than the writer's pauses)"
                )
                continue
            more = {"print": print_ or None, "reason": problem}
            trouble = self._taken.add(arrival.name, arrival.stat, "taken", **more)
            self._health.watch("state", trouble)

    def _has_changed(self, arrival: Arrival, print_: str) -> bool:
        """Whether a file holds something else by now; one that was removed does not."""
        try:
            size = arrival.path.stat().st_size
            if arrival.is_unchanged or size != arrival.stat.st_size:
                return not arrival.is_unchanged
            return fingerprint(arrival.path, size) != print_
        except OSError:
            return False


def _some(sentences: list[str]) -> str | None:
    """The first of many sentences, and how many more there are."""
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
        yield f"folder '{options.path}' does not exist: make it or correct the name"
    problem = channels_problem(options.channels)
    if problem:
        yield problem
    if options.set_aside is not None:
        aside = Path(options.set_aside).resolve()
        if aside == folder.resolve() or (
            options.recursive and folder.resolve() in aside.parents
        ):
            yield "set_aside: name a folder that is not itself searched for recordings"


def _resources(options: FolderOptions) -> frozenset[str]:
    claims = [f"folder:{Path(options.path).resolve()}"]
    if options.state is not None:
        claims.append(f"file:{Path(options.state).resolve()}")
    if options.set_aside is not None:
        claims.append(f"folder:{Path(options.set_aside).resolve()}")
    return frozenset(claims)


def _build(options: FolderOptions, context: BuildContext) -> FolderSource:
    return FolderSource(options, context)


plugin = Plugin(
    kind="source",
    options=FolderOptions,
    build=_build,
    summary="A folder that recorders fill: each finished recording once",
    resources=_resources,
    check=_check,
)
