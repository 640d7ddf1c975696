"""A loudspeaker: synthesized sound, or what is heard, by way of PortAudio."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import DeviceError, StageError, TransientProblem
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.types import Audio, Block, Float32, Gap, Message
from neurovocal.plugins.devices.choice import find_device
from neurovocal.plugins.devices.portaudio import close_output, open_output


class PlaybackRing:
    """Bounded future of one channel.

    Parameters
    ----------
    capacity : int
        Samples that fit.
    guard : int
        Samples before the reader that nothing is written to any more: as many as
        the device takes at a time.

    Attributes
    ----------
    read : int
        Samples that the device has taken.
    written : int
        Position after the last sample that was ever written.
    open_until : int or None
        Where the pieces that go on go on: silence from there is an underrun. None:
        nothing goes on.
    underruns, missing : int
        How often the device found nothing, and how many samples that were.
    late : int
        Samples that came after their time and were left out.
    clipped : int
        Samples beyond [-1, 1], which the device cannot play.
    """

    def __init__(self, capacity: int, guard: int) -> None:
        self._samples = np.zeros(capacity, np.float32)
        self._guard = guard
        self.read = self.written = 0
        self.open_until: int | None = None
        self.underruns = self.missing = self.late = self.clipped = 0
        self._starved = False

    @property
    def soonest(self) -> int:
        """First position that can still be written."""
        return self.read + self._guard

    def room(self, position: int) -> int:
        """Samples that can be written at a position now."""
        return max(0, self.read + len(self._samples) - position)

    def take(self, out: Any) -> None:
        """Give the device its next samples, float32[n_samples, n_channels].

        Runs in the device's callback: copies, counts, returns.
        """
        n_samples, size = len(out), len(self._samples)
        until = self.open_until
        end = self.read + n_samples
        lack = 0 if until is None else end - max(until, self.written, self.read)
        if lack > 0:
            self.missing += lack
            self.underruns += not self._starved
            self._starved = True
        else:
            self._starved = False
        done = 0
        while done < n_samples:
            at = (self.read + done) % size
            count = min(n_samples - done, size - at)
            part = self._samples[at : at + count]
            out[done : done + count] = part[:, None]
            part[:] = 0
            done += count
        self.read += n_samples

    def mix(self, position: int, samples: Float32) -> None:
        """Add samples; they must fit (see `room`). What is late is left out."""
        skipped = min(len(samples), max(0, self.soonest - position))
        self.late += skipped
        position, samples = position + skipped, samples[skipped:]
        size, done = len(self._samples), 0
        while done < len(samples):
            at = (position + done) % size
            count = min(len(samples) - done, size - at)
            part = self._samples[at : at + count]
            part += samples[done : done + count]
            self.clipped += int(np.count_nonzero(np.abs(part) > 1))
            done += count
        self.written = max(self.written, position + len(samples))
        self._take_back(position, len(samples))

    def _take_back(self, position: int, n_samples: int) -> None:
        """Remove what the reader overtook while it was written.

        It would be heard when the ring has come round.
        """
        overtaken = min(n_samples, max(0, self.read - position))
        if overtaken:
            self.late += overtaken
            at = np.arange(position, position + overtaken) % len(self._samples)
            self._samples[at] = 0


# Beyond the latency, so much fits: pieces that come whole are longer than frames.
_ROOM_S = 0.5

# A device that has not moved for so long is gone.
_STALL_S = 5.0
_POLL_S = 0.005


class SpeakerOptions(Options):
    """Options of the ``speaker`` sink."""

    device: str | int | None = None
    """Name of the output device or a part of it, or its number; by default the
    system's."""
    what: Literal["audio", "block"] = "audio"
    """`audio`: synthesized sound; `block`: what the source hears."""
    sample_rate: int | None = Field(default=None, gt=0)
    """Hz; by default the device's own. Sound of another rate is resampled."""
    latency_ms: float = Field(default=100.0, ge=10, le=5000)
    """How long sound waits before it is played: what comes later than that is
    missing (counted as an underrun)."""
    gain_db: float = Field(default=0.0, ge=-120, le=60)
    """Gain. Nothing is limited: samples beyond full scale are clipped and counted."""


class _Piece:
    """Sound that goes on: where its next sample is to be heard."""

    def __init__(self, next_sample: int, position: int, resampler: Any) -> None:
        self.next_sample = next_sample
        self.position = position
        self.resampler = resampler


class SpeakerSink:
    """Plays what comes, each piece in its place of the stream.

    Pieces of a stream keep their distances, and overlapping ones are added, as long as
    device and stream agree about the time; a piece that comes too late for that, or
    goes on after an underrun, begins anew with the full latency.

    Parameters
    ----------
    options : SpeakerOptions
    clock : Clock
        Times the waiting for room.
    """

    def __init__(self, options: SpeakerOptions, clock: Clock) -> None:
        self.wants = frozenset(
            {"audio"} if options.what == "audio" else {"block", "gap"}
        )
        self._options, self._clock = options, clock
        self._gain = np.float32(10 ** (options.gain_db / 20))
        self._stream: Any = None
        self._ring: PlaybackRing | None = None
        self._rate = 0
        self._latency = 0
        self._pieces: dict[tuple[str, str, str], _Piece] = {}
        # Per stream: device position of its sample 0 at the device's rate.
        self._bases: dict[str, float] = {}
        # Per stream: where its latest sound ends.
        self._ends: dict[str, int] = {}
        self._too_early = self._device_underflows = self._begun_anew = 0

    def open(self) -> None:
        """Open the device; it plays silence until something comes.

        Raises
        ------
        DeviceError
            PortAudio or the device is missing, busy, or cannot do what is asked.
        """
        self.close()
        device = find_device(self._options.device, "output")
        self._name = device["name"]
        self._rate = self._options.sample_rate or device["sample_rate"]
        self._latency = round(self._options.latency_ms / 1000 * self._rate)
        block_length = min(self._latency // 2, self._rate // 100)
        self._block_length = block_length
        capacity = self._latency + round(_ROOM_S * self._rate)
        self._ring = PlaybackRing(capacity, block_length)
        self._stream = open_output(
            device,
            self._rate,
            min(2, device["channels"]),
            blocksize=block_length,
            callback=self._play,
        )

    def _play(self, out: Any, n_samples: int, time: Any, status: Any) -> None:
        """PortAudio's callback: copy, count, return."""
        assert self._ring is not None
        self._device_underflows += bool(status.output_underflow)
        self._ring.take(out)

    def write(self, message: Message) -> None:
        """Put sound into its place; waits while there is no room.

        Raises
        ------
        StageError
            The device has stopped.
        """
        stream, event = message.info.stream, message.event
        match event:
            case Audio():
                key = (stream, event.mode, event.model)
                last = event.last
            case Block():
                key, last = (stream, "", ""), False
            case Gap():
                self._end((stream, "", ""))
                return
            case _:
                return
        piece = self._piece(key, message, event.start)
        samples = event.samples[:, 0] * self._gain
        if piece.resampler is not None:
            samples = piece.resampler.resample_chunk(samples, last=last)
        piece.next_sample = event.stop
        self._tell_ring()
        self._put(piece, samples, self._excess(piece, message, event.start))
        self._ends[stream] = piece.position
        if last:
            del self._pieces[key]
        self._tell_ring()

    def flush(self, timeout: float) -> None:
        """Nothing to do: waiting for the end of a sound would delay the next."""

    def close(self) -> None:
        """Play what waits, then end."""
        stream, self._stream = self._stream, None
        if stream is not None:
            for key in list(self._pieces):
                self._end(key)
            self._play_out(stream.latency)
            close_output(stream)
        self._pieces.clear()
        self._bases.clear()
        self._ends.clear()

    def stats(self) -> dict[str, object]:
        """What happened to the sound, for the ``stats`` event."""
        ring = self._ring
        if ring is None:
            return {}
        return {
            "underruns": ring.underruns,
            "missing_samples": ring.missing,
            "late_samples": ring.late,
            "dropped_samples": self._too_early,
            "clipped_samples": ring.clipped,
            "begun_anew": self._begun_anew,
            "device_underflows": self._device_underflows,
            "played_s": round(ring.read / self._rate, 3),
        }

    def _piece(self, key: tuple[str, str, str], message: Message, start: int) -> _Piece:
        """The piece that goes on here, or a new one in its place."""
        ring, rate = self._open_ring(), message.info.sample_rate
        piece = self._pieces.get(key)
        if piece is not None and piece.next_sample == start:
            if piece.position < ring.soonest:
                piece.position = self._begin_anew(key[0], start, rate)
            return piece
        self._end(key)
        base, position = self._bases.get(key[0]), -1
        if base is not None:
            position = round(base + start * self._rate / rate)
        piece = _Piece(start, position, self._resampler(rate))
        late = position < ring.soonest
        if base is None or late or self._excess(piece, message, start):
            piece.position = self._begin_anew(key[0], start, rate)
        self._pieces[key] = piece
        return piece

    def _begin_anew(self, stream: str, start: int, rate: int) -> int:
        ring = self._open_ring()
        self._begun_anew += stream in self._bases
        # Not over what it sang before: pieces that overlap on purpose are no news.
        position = max(ring.soonest + self._latency, self._ends.get(stream, 0))
        self._bases[stream] = position - start * self._rate / rate
        return position

    def _resampler(self, rate: int) -> Any:
        if rate == self._rate:
            return None
        import soxr

        return soxr.ResampleStream(rate, self._rate, 1, dtype="float32")

    def _end(self, key: tuple[str, str, str]) -> None:
        if self._pieces.pop(key, None) is not None:
            self._tell_ring()

    def _tell_ring(self) -> None:
        """Where sound is expected: nowhere before a piece is in its place."""
        positions = [piece.position for piece in self._pieces.values()]
        self._open_ring().open_until = max(positions, default=None)

    def _excess(self, piece: _Piece, message: Message, start: int) -> int:
        """Samples that a live stream is ahead of the device, beyond twice the latency.

        Sound that is not live waits instead.
        """
        if not message.emitted_ns:
            return 0
        foretold = max(0, start - message.at) * self._rate // message.info.sample_rate
        ahead = piece.position - self._open_ring().read - foretold
        return max(0, ahead - 2 * self._latency)

    def _put(self, piece: _Piece, samples: Float32, excess: int) -> None:
        ring = self._open_ring()
        dropped = min(excess, len(samples))
        self._too_early += dropped
        samples = samples[dropped:]
        while len(samples):
            room = min(ring.room(piece.position), len(samples))
            if room == 0:
                self._wait_for_device()
                continue
            ring.mix(piece.position, samples[:room])
            piece.position += room
            samples = samples[room:]

    def _wait_for_device(self) -> None:
        """Wait until the device has taken something.

        Raises
        ------
        StageError
            It takes nothing any more.
        """
        ring = self._open_ring()
        before, began = ring.read, self._clock.monotonic_ns()
        while ring.read == before:
            now = self._clock.monotonic_ns()
            if now - began > _STALL_S * NS:
                raise StageError(
                    f"device '{self._name}' has played nothing for {_STALL_S:g} s: is "
                    "it still connected?"
                )
            self._clock.wait_until(now + round(_POLL_S * NS), _POLL_S)

    def _play_out(self, device_s: float) -> None:
        """Wait until all was heard: sound servers forget what they still hold."""
        ring = self._open_ring()
        end = ring.written + 2 * self._block_length + round(device_s * self._rate)
        while ring.read < end:
            try:
                self._wait_for_device()
            except StageError:
                return

    def _open_ring(self) -> PlaybackRing:
        if self._ring is None:
            raise StageError("the speaker is not open")
        return self._ring


def _build(options: SpeakerOptions, context: BuildContext) -> SpeakerSink:
    return SpeakerSink(options, context.clock)


def _resources(options: SpeakerOptions) -> frozenset[str]:
    name = "default" if options.device is None else options.device
    return frozenset([f"output device:{name}"])


def _check(options: SpeakerOptions, context: BuildContext) -> Iterator[str]:
    try:
        find_device(options.device, "output")
    except DeviceError as error:
        yield TransientProblem(error)


plugin = Plugin(
    kind="sink",
    options=SpeakerOptions,
    build=_build,
    summary="Plays synthesized sound, or what is heard, on a sound card",
    resources=_resources,
    check=_check,
)
