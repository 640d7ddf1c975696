"""A recording played as a sound card would deliver it: in time, or lost."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from neurovocal.engine.capture_clock import CaptureClock
from neurovocal.engine.errors import AudioFileError, EndOfStream
from neurovocal.engine.protocols import SourceItem
from neurovocal.engine.registry import BuildContext, Options, Plugin
from neurovocal.engine.ring import AudioRing, RingCounts
from neurovocal.engine.timebase import NS
from neurovocal.engine.types import StreamInfo
from neurovocal.plugins._audio import Channels, channels_problem
from neurovocal.plugins._live import Intake
from neurovocal.plugins._recording import (
    Header,
    channel_problem,
    find_recordings,
    inspect,
)
from neurovocal.plugins._tape import Tape, TapePlayer


class PlaybackOptions(Options):
    """Options of the ``playback`` source."""

    path: str = Field(min_length=1)
    """The recording."""
    channels: list[int] = [1]
    """Channels to use, counted from 1. Each is labelled by itself unless `mix`
    is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    start_s: float = Field(default=0.0, ge=0)
    """Where in the recording it begins."""
    repeat: int = Field(default=1, ge=0)
    """How often the recording is played, without a pause; 0 is without end."""
    block_length: int | None = Field(default=None, ge=16)
    """Samples that are delivered at once; by default those of 10 ms."""
    buffer_s: float = Field(default=5.0, ge=0.1, le=600)
    """Seconds of audio that can wait while the machine is busy."""


class PlaybackSource:
    """Plays a recording into the ring that a microphone fills.

    Time passes by itself: what is not read within `buffer_s` is overwritten, and a
    gap says so. The recording begins when the source is first opened and goes on
    also while it is closed, as an animal does: opened again it plays what is sung
    then, and ends when the recording would have ended.

    Attributes
    ----------
    latest_ms : float
        How late its own thread ever was: the machine's lateness, not the lane's.
    """

    live = True

    def __init__(self, options: PlaybackOptions, context: BuildContext) -> None:
        self._options = options
        self._context = context
        self._channels = Channels(options.channels, options.mix)
        self._info: StreamInfo | None = None
        self._began_ns: int | None = None
        self._intake: Intake | None = None
        self._player: TapePlayer | None = None

    @property
    def info(self) -> StreamInfo:
        """The stream; known once the recording is open."""
        if self._info is None:
            raise RuntimeError("a playback knows its stream once it is open")
        return self._info

    @property
    def counts(self) -> RingCounts | None:
        """Where every sample went since `open`; None before the first."""
        return None if self._intake is None else self._intake.ring.counts

    @property
    def latest_ms(self) -> float:
        """See the class."""
        return 0.0 if self._player is None else self._player.latest_ms

    def heard_ns(self, sample: int) -> int | None:
        """Monotonic time at which a sample was played; None before the first."""
        return None if self._intake is None else self._intake.capture.heard_ns(sample)

    def open(self) -> None:
        """Read the recording's header and play from where it is by now.

        Raises
        ------
        AudioFileError
            It is missing, cannot be read, is not one, or has not the channels
            asked for.
        """
        self.close()
        options, clock = self._options, self._context.clock
        header = inspect(_one(options.path, self._context))
        _check_fit(options, header)
        rate = header.sample_rate
        self._info = StreamInfo(self._context.stream, rate, self._channels.count)
        now = clock.monotonic_ns()
        if self._began_ns is None:
            self._began_ns = now
        ring = AudioRing(round(options.buffer_s * rate), header.channels)
        capture = CaptureClock(rate, None)
        longest = max(options.block_length or 0, rate // 10)
        self._intake = Intake(ring, capture, self._channels, clock, longest)
        tape = Tape(header, round(options.start_s * rate), options.repeat)
        tape.skip(-(-(now - self._began_ns) * rate // NS))
        self._player = TapePlayer(
            tape,
            ring,
            capture,
            clock,
            self._began_ns,
            options.block_length or max(16, rate // 100),
        )
        self._player.start()

    def read(self, timeout: float) -> SourceItem | None:
        """Return what was played since the last call, or None after `timeout`."""
        if self._intake is None or self._player is None:
            raise EndOfStream
        try:
            return self._intake.read(timeout)
        except EndOfStream:
            if self._player.error is not None:
                raise self._player.error from None
            raise

    def close(self) -> None:
        """Stop listening; the recording goes on unheard."""
        if self._player is not None:
            self._player.stop()


def _one(name: str, context: BuildContext) -> Path:
    found = find_recordings(name, context, recursive=False)
    if len(found) > 1:
        raise AudioFileError(
            f"'{name}' is {len(found)} recordings: name one, or use the source 'file'"
        )
    return found[0]


def _check_fit(options: PlaybackOptions, header: Header) -> None:
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
    try:
        _one(options.path, context)
    except AudioFileError as error:
        yield str(error)
    problem = channels_problem(options.channels)
    if problem:
        yield problem


def _build(options: PlaybackOptions, context: BuildContext) -> PlaybackSource:
    return PlaybackSource(options, context)


plugin = Plugin(
    kind="source",
    options=PlaybackOptions,
    build=_build,
    summary="A recording played live, as a sound card delivers it",
    check=_check,
)
