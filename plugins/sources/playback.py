"""Source that plays a recording at its sample rate, as a sound card delivers it."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from pydantic import Field

from neurovocal.engine import (
    NS,
    AudioFileError,
    BuildContext,
    Channels,
    Clock,
    EndOfStream,
    FileAccess,
    Float32,
    LiveInput,
    LiveSource,
    Options,
    Plugin,
    SourceItem,
    StreamInfo,
    channels_problem,
)
from neurovocal.engine.audio.live_input import buffer_problem
from neurovocal.engine.contracts.options import (
    MOST_COUNT,
    YEAR_S,
    ChannelNumber,
    OptionProblem,
)
from neurovocal.plugins.sources.audio_files.file import (
    Recording,
    RecordingHeader,
    channel_problem,
    find_recordings,
    inspect,
)

_STOP_POLL_S = 0.1
_JOIN_S = 5.0


class PlaybackOptions(Options):
    """Options of the ``playback`` source."""

    path: str = Field(min_length=1)
    """The recording."""
    channels: list[ChannelNumber] = [1]
    """Channels to use, counted from 1. Each is labelled by itself unless `mix`
    is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    start_s: float = Field(default=0.0, ge=0, le=YEAR_S)
    """Where in the recording it begins."""
    repeat: int = Field(default=1, ge=0, le=MOST_COUNT)
    """How often the recording is played, without a pause; 0 is without end."""
    block_length: int | None = Field(default=None, ge=16, le=2**20)
    """Samples that are delivered at once; by default those of 10 ms."""
    buffer_s: float = Field(default=5.0, ge=0.1, le=600)
    """Seconds of audio that can wait while the machine is busy."""


class PlaybackSource(LiveSource):
    """Source that plays a recording into the ring that a microphone fills.

    Samples that are not read within `buffer_s` are overwritten and become a gap. The
    recording starts when the source is first opened and goes on while it is closed:
    opened again, the source continues at the present position and ends when the
    recording would have ended.

    Attributes
    ----------
    latest_ms : float
        Largest lateness of the player's thread in milliseconds: that of the machine,
        not that of the lane.
    """

    live = True

    def __init__(self, options: PlaybackOptions, context: BuildContext) -> None:
        super().__init__(context, Channels(options.channels, options.mix))
        self._options = options
        self._context = context
        self._info: StreamInfo | None = None
        self._began_ns: int | None = None
        self._player: PlayerThread | None = None

    @property
    def info(self) -> StreamInfo:
        """The stream; known once the recording is open."""
        if self._info is None:
            raise RuntimeError("a playback knows its stream once it is open")
        return self._info

    @property
    def latest_ms(self) -> float:
        """Largest lateness of the player's thread in milliseconds."""
        return 0.0 if self._player is None else self._player.latest_ms

    def open(self) -> None:
        """Read the recording's header and play from its present position.

        Raises
        ------
        AudioFileError
            The recording is missing, cannot be read, or does not have the channels
            asked for.
        """
        self.close()
        options, clock = self._options, self._clock
        header = inspect(_single_recording(options.path, self._context))
        _check_fit(options, header)
        rate = header.sample_rate
        self._info = self._stream_info(rate)
        now = clock.monotonic_ns()
        if self._began_ns is None:
            self._began_ns = now
        self._input = LiveInput(
            clock,
            self._channels,
            sample_rate=rate,
            device_channels=header.channels,
            buffer_s=options.buffer_s,
            max_slip_ms=None,
            longest=max(options.block_length or 0, rate // 10),
        )
        loop = RecordingLoop(header, round(options.start_s * rate), options.repeat)
        loop.skip(-(-(now - self._began_ns) * rate // NS))
        block_length = options.block_length or max(16, rate // 100)
        self._player = PlayerThread(
            loop, self._input, clock, self._began_ns, block_length
        )
        self._player.start()

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item, or None if none came within `timeout` seconds."""
        if self._input is None or self._player is None:
            raise EndOfStream
        try:
            return self._input.read(timeout)
        except EndOfStream:
            if self._player.error is not None:
                raise self._player.error from None
            raise

    def close(self) -> None:
        """Stop writing to the ring; the position in the recording goes on."""
        if self._player is not None:
            self._player.stop()


class RecordingLoop:
    """Samples of a recording that is played `repeat` times without a pause.

    Parameters
    ----------
    header : RecordingHeader
        Header of the recording, from `inspect`.
    start : int
        First sample that is played.
    repeat : int
        Number of times it is played; 0: without end.

    Attributes
    ----------
    position : int
        Samples played or skipped since the start.
    """

    def __init__(self, header: RecordingHeader, start: int, repeat: int) -> None:
        self._header = header
        self._start = start
        self._passes_left = repeat or None
        self.position = 0

    def skip(self, n_samples: int) -> None:
        """Move the position forward without reading."""
        self.position += n_samples
        self._start += n_samples
        length = self._header.n_samples
        if length is None or self._start < length:
            return
        passes, self._start = divmod(self._start, length)
        if self._passes_left is not None:
            self._passes_left = max(0, self._passes_left - passes)

    def read(self, n_samples: int) -> Iterator[Float32]:
        """Yield float32[<= n_samples, n_channels] until all has been played."""
        while self._passes_left is None or self._passes_left > 0:
            recording = Recording(self._header)
            recording.open()
            try:
                recording.seek(self._start)
                while len(samples := recording.read(n_samples)):
                    yield samples
            finally:
                recording.close()
            if recording.problem is not None:
                raise AudioFileError(recording.problem)
            self._start = 0
            if self._passes_left is not None:
                self._passes_left -= 1


class PlayerThread(Thread):
    """Thread that writes each block to the ring once its last sample is due.

    If the machine kept the thread waiting, it writes all blocks that are due at once,
    as the buffer of a device does.

    Parameters
    ----------
    loop : RecordingLoop
        Samples to play.
    live : LiveInput
        Its ring is written, and closed at the end; its clock gets the exact time of
        each block.
    clock : Clock
        Source of the monotonic time.
    began_ns : int
        Monotonic time of the loop's position 0.
    block_length : int
        Samples per block.

    Attributes
    ----------
    error : AudioFileError or None
        Why playing ended before the end of the recording.
    latest_ms : float
        Largest lateness of a block in milliseconds.
    """

    def __init__(
        self,
        loop: RecordingLoop,
        live: LiveInput,
        clock: Clock,
        began_ns: int,
        block_length: int,
    ) -> None:
        super().__init__(name="nv-playback", daemon=True)
        self._loop, self._live = loop, live
        self._clock, self._began_ns = clock, began_ns
        self._block_length = block_length
        self._stopping = Flag()
        self.error: AudioFileError | None = None
        self.latest_ms = 0.0

    def stop(self) -> None:
        """End the thread; samples in the ring can still be read."""
        self._stopping.set()
        if self.ident is not None:
            self.join(_JOIN_S)

    def run(self) -> None:
        """Play until the end of the recording or `stop`."""
        try:
            self._play()
        except AudioFileError as error:
            self.error = error
        finally:
            self._live.ring.close()

    def _play(self) -> None:
        capture, clock = self._live.capture, self._clock
        rate = capture.sample_rate
        position = self._loop.position
        for samples in self._loop.read(self._block_length):
            begin_ns = self._began_ns + position * NS // rate
            position += len(samples)
            due_ns = self._began_ns + position * NS // rate
            while not clock.wait_until(due_ns, _STOP_POLL_S):
                if self._stopping.is_set():
                    return
            if self._stopping.is_set():
                return
            now = clock.monotonic_ns()
            self.latest_ms = max(self.latest_ms, (now - due_ns) / 1e6)
            capture.update(len(samples), begin_ns)
            self._live.ring.write(samples, now)


def _single_recording(name: str, context: BuildContext) -> Path:
    found = find_recordings(name, context, recursive=False)
    if len(found) > 1:
        raise AudioFileError(
            f"'{name}' is {len(found)} recordings: name one, or use the source 'file'"
        )
    return found[0]


def _check_fit(options: PlaybackOptions, header: RecordingHeader) -> None:
    problem = channel_problem(header, options.channels)
    if problem is not None:
        raise AudioFileError(problem)
    length = header.n_samples
    if length is not None and options.start_s * header.sample_rate >= length:
        raise AudioFileError(
            f"'{header.path}' ends after {length / header.sample_rate:.1f} s: a "
            f"start_s of {options.start_s:g} lies behind its end"
        )


def _check(options: PlaybackOptions, context: BuildContext) -> Iterator[str]:
    problem = channels_problem(options.channels)
    if problem:
        yield problem
        return
    try:
        header = inspect(_single_recording(options.path, context))
    except AudioFileError as error:
        yield OptionProblem("path", str(error))
        return
    try:
        _check_fit(options, header)
    except AudioFileError as error:
        yield str(error)
        return
    problem = buffer_problem(
        options.buffer_s, header.sample_rate, len(options.channels)
    )
    if problem:
        yield OptionProblem("buffer_s", problem)


def _sample_rate(options: PlaybackOptions, context: BuildContext) -> int | None:
    try:
        return inspect(_single_recording(options.path, context)).sample_rate
    except AudioFileError:  # the check says so
        return None


def _reads(options: PlaybackOptions, context: BuildContext) -> list[FileAccess]:
    return [FileAccess(context.path(options.path))]


def _build(options: PlaybackOptions, context: BuildContext) -> PlaybackSource:
    return PlaybackSource(options, context)


plugin = Plugin(
    kind="source",
    options=PlaybackOptions,
    build=_build,
    summary="A recording played live, as a sound card delivers it",
    check=_check,
    reads=_reads,
    sample_rate=_sample_rate,
)
