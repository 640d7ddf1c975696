"""Play synthesized audio, or the audio of the source, through PortAudio."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neurovocal.engine import (
    NS,
    Audio,
    Block,
    BuildContext,
    Clock,
    DeviceError,
    Float32,
    Gap,
    Message,
    Options,
    Plugin,
    StageError,
    TransientProblem,
)
from neurovocal.engine.contracts.options import DeviceNumber, SampleRate
from neurovocal.plugins.devices.choice import find_device
from neurovocal.plugins.devices.portaudio import open_output

# Room in the ring beyond the latency: whole sequences are longer than frames.
_ROOM_S = 0.5
# A device has stopped if it took no samples for so long.
_STALL_S = 5.0
_POLL_S = 0.005


class SpeakerOptions(Options):
    """Options of the ``speaker`` sink."""

    device: str | DeviceNumber | None = None
    """Name of the output device or a part of it, or its number; by default the
    system's."""
    what: Literal["audio", "block"] = "audio"
    """`audio`: synthesized sound; `block`: the audio of the source."""
    sample_rate: SampleRate | None = None
    """Hz; by default the device's own. Sound of another rate is resampled."""
    latency_ms: float = Field(default=100.0, ge=10, le=5000)
    """Delay before sound is played: samples that come later than that are
    missing (counted as an underrun)."""
    gain_db: float = Field(default=0.0, ge=-120, le=60)
    """Gain. Nothing is limited: samples beyond full scale are clipped and counted."""


class PlaybackRing:
    """Ring of the next samples of one output channel.

    Parameters
    ----------
    capacity : int
        Number of samples.
    guard : int
        Samples ahead of the reader that are no longer written: one block of the
        device.

    Attributes
    ----------
    read : int
        Number of samples that the device has read.
    written : int
        Position after the last sample that was written.
    expected_from : int or None
        Position from which silence is an underrun, because a sound continues there;
        None: no sound continues.
    underruns, missing : int
        Number of underruns, and of samples missing in them.
    late : int
        Samples that came too late and were left out.
    clipped : int
        Samples outside of [-1, 1].
    """

    def __init__(self, capacity: int, guard: int) -> None:
        self._samples = np.zeros(capacity, np.float32)
        self._guard = guard
        self.read = self.written = 0
        self.expected_from: int | None = None
        self.underruns = self.missing = self.late = self.clipped = 0
        self._starved = False

    @property
    def first_writable(self) -> int:
        """First position that can still be written."""
        return self.read + self._guard

    def free_samples(self, position: int) -> int:
        """Return the number of samples that can be written at a position now."""
        return max(0, self.read + len(self._samples) - position)

    def get(self, out: Any) -> None:
        """Fill float32[n_samples, n_channels] with the next samples (callback)."""
        n_samples, size = len(out), len(self._samples)
        until = self.expected_from
        end = self.read + n_samples
        missing = 0 if until is None else end - max(until, self.written, self.read)
        if missing > 0:
            self.missing += missing
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
        """Add float32[n_samples] that fit (`free_samples`); leave late samples out."""
        skipped = min(len(samples), max(0, self.first_writable - position))
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
        self._remove_overtaken(position, len(samples))

    def _remove_overtaken(self, position: int, n_samples: int) -> None:
        """Clear samples that the reader overtook while they were written.

        The device would play them after a full turn of the ring.
        """
        overtaken = min(n_samples, max(0, self.read - position))
        if overtaken:
            self.late += overtaken
            at = np.arange(position, position + overtaken) % len(self._samples)
            self._samples[at] = 0


class _Sound:
    """Continuous sound of a stream.

    Parameters
    ----------
    next_sample : int
        Sample of the stream that comes next.
    position : int
        Position of that sample in the ring.
    resampler : soxr.ResampleStream or None
        None: the device has the rate of the stream.
    """

    def __init__(self, next_sample: int, position: int, resampler: Any) -> None:
        self.next_sample = next_sample
        self.position = position
        self.resampler = resampler


class SpeakerSink:
    """Plays sounds at their position in the stream.

    Sounds of a stream keep their distances, and overlapping ones are added, as long as
    the clocks of device and stream agree. A sound that comes too late, or continues
    after an underrun, is played with the full latency again.

    Parameters
    ----------
    options : SpeakerOptions
        Checked options.
    clock : Clock
        Monotonic time, for the time limit of a device that has stopped.
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
        self._sounds: dict[tuple[str, str, str], _Sound] = {}
        # By stream: position of its sample 0 in the ring.
        self._bases: dict[str, float] = {}
        # By stream: position of the end of its last sound.
        self._ends: dict[str, int] = {}
        self._dropped = self._device_underflows = self._restarts = 0

    def open(self) -> None:
        """Open the device, which plays silence until the first sound.

        Raises
        ------
        DeviceError
            PortAudio or the device is missing or busy, or does not support the format.
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
            callback=self._on_output,
        )

    def _on_output(self, out: Any, n_samples: int, time: Any, status: Any) -> None:
        """Fill float32[n_samples, n_channels] from the ring (callback)."""
        assert self._ring is not None
        self._device_underflows += bool(status.output_underflow)
        self._ring.get(out)

    def write(self, message: Message) -> None:
        """Write audio to the ring at its position; wait while there is no room.

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
        sound = self._sound(key, message, event.start)
        samples = event.samples[:, 0] * self._gain
        if sound.resampler is not None:
            samples = sound.resampler.resample_chunk(samples, last=last)
        sound.next_sample = event.stop
        self._update_expected()
        self._write_sound(sound, samples, self._excess(sound, message, event.start))
        self._ends[stream] = sound.position
        if last:
            del self._sounds[key]
        self._update_expected()

    def flush(self, timeout: float) -> None:
        """Do nothing: to wait for the end of a sound would delay the next one."""

    def close(self) -> None:
        """Play all samples in the ring and close the device."""
        stream, self._stream = self._stream, None
        if stream is not None:
            for key in list(self._sounds):
                self._end(key)
            self._drain(stream.latency)
            stream.close()
        self._sounds.clear()
        self._bases.clear()
        self._ends.clear()

    def stats(self) -> dict[str, object]:
        """Return counts of underruns, late and clipped samples for ``stats``."""
        ring = self._ring
        if ring is None:
            return {}
        return {
            "underruns": ring.underruns,
            "missing_samples": ring.missing,
            "late_samples": ring.late,
            "dropped_samples": self._dropped,
            "clipped_samples": ring.clipped,
            "begun_anew": self._restarts,
            "device_underflows": self._device_underflows,
            "played_s": round(ring.read / self._rate, 3),
        }

    def _sound(self, key: tuple[str, str, str], message: Message, start: int) -> _Sound:
        """Return the sound that continues at `start`, or a new one."""
        ring, rate = self._open_ring(), message.info.sample_rate
        sound = self._sounds.get(key)
        if sound is not None and sound.next_sample == start:
            if sound.position < ring.first_writable:
                sound.position = self._restart(key[0], start, rate)
            return sound
        self._end(key)
        base, position = self._bases.get(key[0]), -1
        if base is not None:
            position = round(base + start * self._rate / rate)
        sound = _Sound(start, position, self._resampler(rate))
        late = position < ring.first_writable
        if base is None or late or self._excess(sound, message, start):
            sound.position = self._restart(key[0], start, rate)
        self._sounds[key] = sound
        return sound

    def _restart(self, stream: str, start: int, rate: int) -> int:
        ring = self._open_ring()
        self._restarts += stream in self._bases
        # Behind the last sound of the stream; wanted overlaps are no restart.
        position = max(ring.first_writable + self._latency, self._ends.get(stream, 0))
        self._bases[stream] = position - start * self._rate / rate
        return position

    def _resampler(self, rate: int) -> Any:
        if rate == self._rate:
            return None
        import soxr

        return soxr.ResampleStream(rate, self._rate, 1, dtype="float32")

    def _end(self, key: tuple[str, str, str]) -> None:
        if self._sounds.pop(key, None) is not None:
            self._update_expected()

    def _update_expected(self) -> None:
        """Set the position from which the ring expects samples."""
        positions = [sound.position for sound in self._sounds.values()]
        self._open_ring().expected_from = max(positions, default=None)

    def _excess(self, sound: _Sound, message: Message, start: int) -> int:
        """Return the samples that a live stream is ahead of twice the latency.

        Sounds of streams that are not live wait instead.
        """
        if not message.emitted_ns:
            return 0
        predicted = max(0, start - message.at) * self._rate // message.info.sample_rate
        ahead = sound.position - self._open_ring().read - predicted
        return max(0, ahead - 2 * self._latency)

    def _write_sound(self, sound: _Sound, samples: Float32, excess: int) -> None:
        ring = self._open_ring()
        dropped = min(excess, len(samples))
        self._dropped += dropped
        samples = samples[dropped:]
        while len(samples):
            room = min(ring.free_samples(sound.position), len(samples))
            if room == 0:
                self._wait_for_device()
                continue
            ring.mix(sound.position, samples[:room])
            sound.position += room
            samples = samples[room:]

    def _wait_for_device(self) -> None:
        """Wait until the device has read samples.

        Raises
        ------
        StageError
            The device has stopped.
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

    def _drain(self, device_s: float) -> None:
        """Wait until all sound was output: sound servers drop the rest at closing."""
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
