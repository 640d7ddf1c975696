"""Source of raw PCM from standard input or from a program such as ffmpeg."""

import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator

from pydantic import AwareDatetime, Field

from neurovocal.engine import (
    Anchor,
    BuildContext,
    Channels,
    ConfigError,
    Disconnected,
    EndOfStream,
    LiveInput,
    LiveSource,
    Options,
    Plugin,
    SourceItem,
    StageError,
    StreamInfo,
    channels_problem,
    finite_items,
)
from neurovocal.engine.audio.live_input import buffer_problem
from neurovocal.engine.audio.non_finite import JoinedGaps
from neurovocal.engine.contracts.options import (
    DAY_MS,
    DAY_S,
    ChannelNumber,
    OptionProblem,
    SampleRate,
)
from neurovocal.engine.support.platform import readable
from neurovocal.plugins.sources.audio_files.start_time import utc_ns
from neurovocal.plugins.sources.pipe.command import Command, split_command
from neurovocal.plugins.sources.pipe.pcm import PcmDecoder, SampleFormat
from neurovocal.plugins.sources.pipe.reader import PipeReader


class PipeOptions(Options):
    """Options of the ``pipe`` source."""

    sample_rate: SampleRate
    """Hz; raw samples do not say it themselves."""
    sample_format: SampleFormat = "s16le"
    """What the bytes are, as ffmpeg names it (`-f s16le`)."""
    channels_in: ChannelNumber = 1
    """How many channels are interleaved."""
    channels: list[ChannelNumber] = [1]
    """Channels to use, counted from 1. Each is labelled by itself unless `mix`
    is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    command: str | list[str] | None = None
    """Program to read audio from; no shell is involved. By default standard
    input is read."""
    live: bool | None = None
    """Whether the audio is live: samples not read within `buffer_s` are then
    dropped, counted and reported; else the writer has to wait. By default true
    for a command and false for standard input. A command that reads a recording
    needs false."""
    block_length: int = Field(default=4096, ge=1, le=2**20)
    """Most samples read at once."""
    buffer_s: float = Field(default=5.0, ge=0.1, le=600)
    """Live: seconds of audio that can wait while the machine is busy. A backlog that
    comes faster than time passes, as after a stall of the network, waits outside."""
    stall_timeout_s: float = Field(default=15.0, ge=0.1, le=DAY_S)
    """Live: seconds without a sample after which the writer counts as gone."""
    endless: bool = False
    """Live, with a command: the stream has no end. However the command ends, the
    connection counts as lost, and the command is started again."""
    max_slip_ms: float | None = Field(default=1000.0, gt=0, le=DAY_MS)
    """Live: how far the count of samples may lag behind the clock for good before
    samples are declared missing; null: never, as for a writer with pauses."""
    start_utc: AwareDatetime | None = None
    """Not live: when the first sample was recorded, ISO 8601 with a zone."""


class PipeSource(LiveSource):
    """Source of raw samples from standard input or a program.

    Attributes
    ----------
    notices : list of str
        Remarks for the user, shown once.
    """

    def __init__(self, options: PipeOptions, context: BuildContext) -> None:
        super().__init__(context, Channels(options.channels, options.mix))
        self._options = options
        self.live = options.live
        if options.live is None:
            self.live = options.command is not None
        self._command: Command | None = None
        self._fd = -1
        self._reader: PipeReader | None = None  # live only
        self._pending: deque[SourceItem] = deque()  # not live only
        self.notices: list[str] = []

    @property
    def info(self) -> StreamInfo:
        """The stream, as the options describe it."""
        return self._stream_info(self._options.sample_rate)

    def open(self) -> None:
        """Start the program or open standard input.

        Raises
        ------
        ConfigError
            The program cannot be run, or standard input is a terminal.
        """
        self.close()
        options = self._options
        if options.command is not None:
            self._command = Command(split_command(options.command))
            self._fd, self._name = self._command.fd, f"command '{self._command.name}'"
        else:
            self._fd, self._name = _stdin(), "standard input"
        self._decoder = PcmDecoder(options.sample_format, options.channels_in)
        self._position = 0
        self._gaps = JoinedGaps(options.sample_rate)
        self._pending.clear()
        self._input = None
        if self.live:
            self._start_reader()
        elif options.start_utc is not None:
            self._pending.append(Anchor(0, utc_ns(options.start_utc)))

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item, or None if none came within `timeout` seconds.

        Raises
        ------
        StageError
            The program ended with an error; not live.
        Disconnected
            Live, and the program ended with an error, or at all although its stream
            is endless, or it no longer writes.
        """
        try:
            if self._input is not None:
                return self._read_live(self._input, timeout)
            return self._read_fd(timeout)
        except EndOfStream:
            self._finish_stream()
            raise

    def close(self) -> None:
        """End the program; live, samples that have arrived can still be read."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
        if self._command is not None:
            self._command.close()
            self._command = None
        self._fd = -1

    # ---- not live: the writer waits for the engine -------------------------------

    def _read_fd(self, timeout: float) -> SourceItem | None:
        if self._pending:
            return self._pending.popleft()
        if self._fd < 0:
            raise EndOfStream
        if not readable(self._fd, timeout_s=max(0.0, timeout)):
            return None
        wanted = self._options.block_length * self._decoder.sample_bytes
        data = os.read(self._fd, wanted - self._decoder.rest)
        if not data:
            self._pending += self._gaps.flush()
            if self._pending:
                return self._pending.popleft()
            raise EndOfStream
        samples = self._decoder.decode(data)
        if not len(samples):
            return None
        start, self._position = self._position, self._position + len(samples)
        picked = finite_items(start, self._channels.pick(samples))
        self._pending += self._gaps.process(picked)
        return self._pending.popleft() if self._pending else None

    # ---- live: the engine waits for the writer -----------------------------------

    def _start_reader(self) -> None:
        options = self._options
        self._input = LiveInput(
            self._clock,
            self._channels,
            sample_rate=options.sample_rate,
            device_channels=options.channels_in,
            buffer_s=options.buffer_s,
            max_slip_ms=options.max_slip_ms,
            longest=options.block_length,
        )
        self._reader = PipeReader(
            self._fd, self._decoder, self._input, self._clock, options.buffer_s
        )
        self._reader.start()

    def _read_live(self, live: LiveInput, timeout: float) -> SourceItem | None:
        item = live.read(timeout)
        if item is None and self._reader is not None:
            self._check_stall(self._name, self._options.stall_timeout_s)
        return item

    # ---- the end ------------------------------------------------------------------

    def _finish_stream(self) -> None:
        """Report bytes left over, and raise if the program ended with an error."""
        if self._fd < 0:
            return
        rest, command = self._decoder.rest, self._command
        if command is None and not self._position and not self.live:
            self.notices.append(
                "nothing came on standard input: did the program before the pipe fail?"
            )
        if rest:
            self.notices.append(
                f"{self._name} ended within a sample: its last {rest} bytes are "
                "ignored (are sample_format and channels_in right?)"
            )
        failure = command.failure() if command is not None else None
        self.close()
        if self.live and failure is not None:
            raise Disconnected(failure) from None
        if failure is not None:
            raise StageError(failure) from None
        if self.live and self._options.endless:
            raise Disconnected(f"{self._name} ended") from None


def _stdin() -> int:
    try:
        fd = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError) as error:
        raise ConfigError("there is no standard input to read") from error
    if os.isatty(fd):
        raise ConfigError(
            "standard input is a terminal: pipe raw samples into it, or give a command"
        )
    return fd


def _build(options: PipeOptions, context: BuildContext) -> PipeSource:
    return PipeSource(options, context)


def _resources(options: PipeOptions) -> frozenset[str]:
    return frozenset(["stdin"] if options.command is None else [])


def _check(options: PipeOptions, context: BuildContext) -> Iterator[str]:
    problem = channels_problem(options.channels)
    if problem:
        yield problem
    elif max(options.channels) > options.channels_in:
        yield (
            f"channels: there is no channel {max(options.channels)}, "
            f"channels_in is {options.channels_in}"
        )
    problem = buffer_problem(options.buffer_s, options.sample_rate, options.channels_in)
    if problem and options.live is not False:
        yield OptionProblem("buffer_s", problem)
    if options.endless and (options.command is None or options.live is False):
        yield "endless: only a live command can be started again"
    if options.command is None:
        return
    try:
        program = split_command(options.command)[0]
    except ConfigError as error:
        yield OptionProblem("command", str(error).removeprefix("command: "))
        return
    if shutil.which(program) is None:
        yield OptionProblem(
            "command",
            f"command '{program}' does not exist: install it or correct the name",
        )


plugin = Plugin(
    kind="source",
    options=PipeOptions,
    build=_build,
    summary="Raw PCM from standard input or from a command such as ffmpeg",
    resources=_resources,
    check=_check,
    sample_rate=lambda options, context: options.sample_rate,
)
