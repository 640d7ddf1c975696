"""Source that reads recordings: one, several, a folder or a pattern."""

from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import AwareDatetime, Field

from neurovocal.engine import (
    Anchor,
    AudioFileError,
    Block,
    BuildContext,
    Channels,
    EndOfStream,
    FileAccess,
    Float32,
    Gap,
    Options,
    Plugin,
    StreamInfo,
    StreamItem,
    channels_problem,
    finite_items,
)
from neurovocal.engine.audio.channels import Pacer
from neurovocal.engine.audio.non_finite import JoinedGaps, ShortRuns
from neurovocal.engine.contracts.options import (
    MOST_COUNT,
    BlockLength,
    ChannelNumber,
    OptionProblem,
)
from neurovocal.engine.contracts.types import GAP_NEXT_RECORDING
from neurovocal.engine.support.text import plain
from neurovocal.plugins.sources.audio_files.file import (
    Recording,
    RecordingHeader,
    stream_names,
)
from neurovocal.plugins.sources.audio_files.selection import (
    check_one_rate,
    describe_starts,
    doubtful_starts,
    expanded,
    find_all,
    inspect_all,
    noted,
    unused_channels,
    without_repeats,
)
from neurovocal.plugins.sources.audio_files.start_time import (
    TimeZone,
    time_problem,
    utc_ns,
    zone_of,
)

_READ_LENGTH = 8192
_FAR_BEYOND = 1e6  # of full scale
_SHOWN = 5


class FileOptions(Options):
    """Options of the ``file`` source."""

    path: str | list[str]
    """Recording, folder or pattern such as `day1/*.wav`, or a list of them."""
    pace: Literal["asap", "realtime"] = "asap"
    """As fast as possible, or at the pace of the recording."""
    streams: Literal["each", "one"] = "each"
    """Every recording a stream of its own, or all of them one after the other."""
    channels: list[ChannelNumber] | None = None
    """Channels to use, counted from 1; by default the first. Each is labelled
    by itself unless `mix` is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    block_length: BlockLength | None = None
    """Samples read at once; by default 8192, or 10 ms at the pace of hearing."""
    start_utc: AwareDatetime | Literal["metadata", "none"] = "metadata"
    """When the first sample was recorded: ISO 8601 with a zone, or `metadata` to
    believe the recording (GUANO, AudioMoth, bext, a date, its name), or `none`."""
    timezone: TimeZone = None
    """Zone of times in metadata and names that do not say theirs, such as
    `Europe/Berlin`, `UTC` or `+02:00`; by default such times are not believed."""
    names: Literal["short", "path"] = "short"
    """What streams are called: the file's name (its path where two agree), or
    always the path as it was given."""
    repeat: int = Field(default=1, ge=0, le=MOST_COUNT)
    """How often all recordings are read; 0 is without end."""
    recursive: bool = False
    """Whether folders inside a folder are searched, too."""
    on_bad_file: Literal["fail", "skip"] | None = None
    """What to do about a recording that cannot be read; by default `skip` when
    there are several (they are reported and the exit code is 2), else `fail`."""


class FileSource:
    """Source that reads recordings and drops nothing, whatever the pace.

    Attributes
    ----------
    notices : list of str
        Remarks for the user, shown once, such as channels that are not used.
    failures : list of str
        A sentence for each recording that could not be read, wholly or in part.
    recordings : dict of str to Path
        Path of each stream that has begun.
    progress : tuple of (int, int or None)
        Samples read so far and in all; None if a format does not state its length or
        the recordings are repeated without end.
    """

    live = False

    def __init__(self, options: FileOptions, context: BuildContext) -> None:
        self._options = options
        self._context = context
        self._info: StreamInfo | None = None
        self._zone = zone_of(options.timezone) if options.timezone else None
        self._items: Iterator[StreamItem] = iter(())
        self._pending: deque[StreamItem] = deque()
        self._recording: Recording | None = None
        self._headers: list[RecordingHeader] = []
        self._paths: dict[str, Path] = {}  # by the names of streams
        self._left_out: set[str] = set()
        self.notices: list[str] = []
        self.failures: list[str] = []
        self.recordings: dict[str, Path] = {}
        self.progress: tuple[int, int | None] = (0, None)

    @property
    def info(self) -> StreamInfo:
        """The stream that is being read."""
        if self._info is None:
            raise RuntimeError("a file source knows its stream once it is open")
        return self._info

    def open(self) -> None:
        """Find the recordings and read their headers.

        Raises
        ------
        AudioFileError
            A recording is missing, cannot be read or lacks a channel, or recordings
            of one stream differ in rate.
        """
        self.close()
        self.notices.clear()
        self.failures.clear()
        self.recordings.clear()
        self._left_out.clear()
        options = self._options
        paths, problems = find_all(options.path, self._context, options.recursive)
        if problems:
            raise AudioFileError("\n".join(problems))
        if options.streams == "each":
            paths, repeats = without_repeats(paths)
            self.notices += repeats
        policy = options.on_bad_file or ("skip" if len(paths) > 1 else "fail")
        self._fail = policy == "fail"
        asked = options.channels or [1]
        self._channels = Channels(asked, options.mix)
        headers, problems = inspect_all(paths, asked, self._zone)
        if problems and (self._fail or not headers):
            raise AudioFileError("\n".join(problems))
        self._headers = headers
        self.failures += problems
        if options.streams == "one":
            check_one_rate(headers)
        if options.channels is None:
            self.notices += unused_channels(headers)
        self.notices += expanded(headers)
        self.notices += noted(headers)
        if options.start_utc == "metadata":
            self.notices += doubtful_starts(headers)
        self._pacer = Pacer(
            self._context.clock, headers[0].sample_rate, options.pace == "realtime"
        )
        names = stream_names([header.path for header in headers], options.names)
        self._paths = dict(zip(names, (h.path for h in headers), strict=True))
        self._info = self._stream(headers[0], names[0])
        self._items = self._items_of(list(zip(headers, names, strict=True)))
        lengths = [header.n_samples for header in headers]
        known = options.repeat > 0 and None not in lengths
        total = sum(length or 0 for length in lengths) * options.repeat
        self.progress = (0, total if known else None)
        # As a device does: networks and sinks open while the first sounds are heard.
        self._pacer.begin()

    def describe(self) -> Iterator[str]:
        """Yield lines for ``neurovocal check``: the start of each recording."""
        if self._options.start_utc == "metadata":
            options = self._options
            paths, _ = find_all(options.path, self._context, options.recursive)
            yield from describe_starts(paths, self._zone)

    def starts(self) -> Iterator[str]:
        """Yield lines for ``neurovocal label``: the starts that were used."""
        known = [header for header in self._headers if header.start.utc_ns is not None]
        for header in known[:_SHOWN]:
            yield plain(f"'{header.path}' began: {header.start}")
        if len(known) > _SHOWN:
            yield f"... and {len(known) - _SHOWN} more recordings"

    def read(self, timeout: float) -> StreamItem | None:
        """Return the next item, or None while it is not due in real time."""
        if not self._pending:
            item = next(self._items, None)
            if item is None:
                raise EndOfStream
            self._pending.append(item)
        item = self._pending[0]
        if isinstance(item, StreamInfo):
            self._info = item
        elif isinstance(item, Block | Gap) and not self._pacer.wait(item.stop, timeout):
            return None
        return self._pending.popleft()

    def leave_out(self, stream: str, reason: str) -> bool:
        """End a recording that cannot be processed, unless all are one stream."""
        path = self.recordings.get(stream, self._paths.get(stream))
        if path is None or self._fail or self._options.streams == "one":
            return False
        self.failures.append(plain(f"'{path}' is left out: {reason}"))
        self._left_out.add(stream)
        return True

    def close(self) -> None:
        """Close the open recording."""
        self._items = iter(())
        self._pending.clear()
        if self._recording is not None:
            self._recording.close()
            self._recording = None

    def _stream(self, header: RecordingHeader, name: str) -> StreamInfo:
        duration_s = header.duration_s
        if self._options.streams == "one":
            name, duration_s = self._context.stream, None
        channels = self._channels
        return StreamInfo(
            name, header.sample_rate, channels.count, channels.numbers, duration_s
        )

    def _items_of(
        self, playlist: list[tuple[RecordingHeader, str]]
    ) -> Iterator[StreamItem]:
        """Yield all items of all recordings in order."""
        passes = self._options.repeat
        position = 0
        for number in count(1):
            for header, name in playlist:
                unique = name if number == 1 else f"{name}~{number}"
                first = not self.recordings
                self.recordings[unique] = header.path
                if self._options.streams == "each":
                    self._pacer.next_stream(position, header.sample_rate)
                    position = 0
                    yield self._stream(header, unique)
                elif first:
                    yield self._stream(header, unique)
                else:
                    yield Gap(position, position, GAP_NEXT_RECORDING)
                if unique in self._left_out:
                    continue
                yield from self._anchor(header, position, first)
                for item in self._samples(header, position):
                    if unique in self._left_out:
                        break
                    yield item
                    position = item.stop
                if self._fail and self.failures:
                    return
            if number == passes:
                return

    def _anchor(
        self, header: RecordingHeader, position: int, first: bool
    ) -> Iterator[Anchor]:
        start = self._options.start_utc
        if start == "metadata":
            if header.start.utc_ns is not None:
                yield Anchor(position, header.start.utc_ns)
        elif start != "none" and first:
            yield Anchor(position, utc_ns(start))

    def _samples(self, header: RecordingHeader, position: int) -> Iterator[Block | Gap]:
        """Yield the samples of a recording; an error is added to `failures`."""
        realtime = self._options.pace == "realtime"
        default = max(1, header.sample_rate // 100) if realtime else _READ_LENGTH
        length = self._options.block_length or default
        recording = self._recording = Recording(header)
        runs = ShortRuns(header.sample_rate, self._channels.numbers)
        gaps = JoinedGaps(header.sample_rate)
        peak = 0.0
        try:
            recording.open()
            # A read is slow per call: many small blocks are cut from one.
            while len(read := recording.read(max(1, _READ_LENGTH // length) * length)):
                peak = max(peak, float(np.fmax.reduce(np.abs(read), None)))
                done, total = self.progress
                self.progress = (done + len(read), total)
                picked = runs.process(self._channels.pick(read))
                yield from self._blocks(picked, position, length, gaps)
                position += len(picked)
            if (rest := runs.flush()) is not None:
                yield from self._blocks(rest, position, length, gaps)
            yield from gaps.flush()
        except AudioFileError as error:
            self.failures.append(str(error))
        finally:
            recording.close()
        if runs.sentence is not None:
            self.notices.append(f"'{header.path}': {runs.sentence}")
        if _FAR_BEYOND < peak < np.inf:
            self.notices.append(
                f"'{header.path}' has samples of up to {peak:.3g}, where 1 is full "
                "scale: what is found in it may be wrong"
            )
        if recording.problem is not None:
            self.failures.append(plain(recording.problem))

    def _blocks(
        self, samples: Float32, position: int, length: int, gaps: JoinedGaps
    ) -> Iterator[Block | Gap]:
        """Yield samples from `position` on in blocks of `length`, and their gaps."""
        for first in range(0, len(samples), length):
            part = samples[first : first + length]
            start = position + first
            due_ns = self._pacer.due_ns(start + len(part))
            yield from gaps.process(finite_items(start, part, due_ns))


def _check(options: FileOptions, context: BuildContext) -> Iterator[str]:
    paths, problems = find_all(options.path, context, options.recursive)
    yield from (OptionProblem("path", problem) for problem in problems)
    if options.channels is not None:
        problem = channels_problem(options.channels)
        if problem:
            yield problem
        elif max(options.channels) > 1:
            headers, lacking = inspect_all(paths, options.channels, None)
            if paths and not headers:
                readable, _ = inspect_all(paths, [1], None)
                blamed = "channels" if readable else "path"
                yield from (OptionProblem(blamed, problem) for problem in lacking)
    dated = not isinstance(options.start_utc, str)
    if not isinstance(options.start_utc, str) and (
        problem := time_problem(options.start_utc)
    ):
        yield OptionProblem("start_utc", f"{options.start_utc.isoformat()}, {problem}")
    if dated and len(paths) > 1 and options.streams == "each":
        yield OptionProblem(
            "start_utc",
            f"{len(paths)} recordings cannot all have begun at one time (use streams: "
            "one)",
        )


def _reads(options: FileOptions, context: BuildContext) -> list[FileAccess]:
    paths, _ = find_all(options.path, context, options.recursive)
    return [FileAccess(path) for path in paths]


def _sample_rate(options: FileOptions, context: BuildContext) -> int | None:
    """Return the rate of one recording; each of several is judged when it comes."""
    paths, _ = find_all(options.path, context, options.recursive)
    if len(paths) == 1 or (paths and options.streams == "one"):
        headers, _ = inspect_all(paths[:1], [1], None)
        return headers[0].sample_rate if headers else None
    return None


def _build(options: FileOptions, context: BuildContext) -> FileSource:
    return FileSource(options, context)


plugin = Plugin(
    kind="source",
    options=FileOptions,
    build=_build,
    summary="Recordings on disk: one, several, a folder or a pattern",
    check=_check,
    reads=_reads,
    sample_rate=_sample_rate,
)
