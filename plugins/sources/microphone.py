"""A sound card as a source, by way of PortAudio."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from neurovocal.engine.audio.capture_clock import CaptureClock
from neurovocal.engine.audio.channels import Channels, channels_problem
from neurovocal.engine.audio.live_input import LiveInput, StaleAudioFilter
from neurovocal.engine.audio.ring import AudioRing, RingCounts
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import (
    DeviceError,
    Disconnected,
    EndOfStream,
    TransientProblem,
)
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.stages import SourceItem
from neurovocal.engine.contracts.types import (
    GAP_DEVICE_OVERFLOW,
    GAP_DEVICE_SLIP,
    StreamInfo,
)
from neurovocal.plugins.devices.choice import find_again, find_device
from neurovocal.plugins.devices.portaudio import close_input, input_devices, open_input

_PLAUSIBLE_S = 10.0


class MicrophoneOptions(Options):
    """Options of the ``microphone`` source."""

    device: str | int | None = None
    """Name of the input device or a part of it, its USB port, such as `usb:1-4.2`, or
    its number in `neurovocal devices`; by default the system's."""
    sample_rate: int | None = Field(default=None, gt=0)
    """Hz; by default the device's own."""
    channels: list[int] = [1]
    """Channels to use, counted from 1. Each is labelled by itself unless `mix`
    is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    block_length: int | None = Field(default=None, ge=16)
    """Samples that the device delivers at once; by default it chooses."""
    latency: Literal["low", "high"] = "high"
    """PortAudio's buffering: `high` survives a busy machine, `low` answers
    some tens of milliseconds sooner."""
    buffer_s: float = Field(default=5.0, ge=0.1, le=600)
    """Seconds of audio that can wait while the machine is busy."""
    stall_timeout_s: float = Field(default=5.0, gt=0)
    """Seconds without a sample after which the device counts as gone."""
    max_slip_ms: float | None = Field(default=200.0, gt=0)
    """How far the count of samples may lag behind the clock before samples are
    declared missing; null: never."""


class MicrophoneSource:
    """Listens to an input device.

    PortAudio's callback copies into a ring and returns; `read` takes from there.

    Attributes
    ----------
    overflows : int
        How often the device said that samples were lost.
    """

    live = True

    def __init__(self, options: MicrophoneOptions, context: BuildContext) -> None:
        self._options = options
        self._context = context
        self._clock = context.clock
        self._channels = Channels(options.channels, options.mix)
        self._sample_rate = options.sample_rate
        self._name = "" if options.device is None else str(options.device)
        self._device: dict[str, Any] | None = None
        self._stream: Any = None
        self._intake: LiveInput | None = None
        self._closing = False
        self.overflows = 0

    @property
    def info(self) -> StreamInfo:
        """The stream; its rate may be known only once the device is open."""
        if self._sample_rate is None:
            raise RuntimeError("the device's own sample rate is known once it is open")
        return StreamInfo(self._context.stream, self._sample_rate, self._channels.count)

    @property
    def counts(self) -> RingCounts | None:
        """Where every sample went; None before the first `open`."""
        return None if self._intake is None else self._intake.ring.counts

    def captured_ns(self, sample: int) -> int | None:
        """Monotonic time at which a sample was captured; None before the first."""
        return (
            None if self._intake is None else self._intake.capture.captured_ns(sample)
        )

    def open(self) -> None:
        """Find the device, open it and start to listen.

        Raises
        ------
        DeviceError
            PortAudio or the device is missing, busy, or cannot do what is asked.
        """
        self.close()
        options = self._options
        # Once it is known it is looked for by name: numbers, and what the system
        # calls its default, change when a device goes and comes.
        known = self._device
        device = find_device(options.device) if known is None else find_again(known)
        self._device, self._name = device, device["name"]
        # One that comes back with another rate of its own is asked for that of before,
        # so that the stream goes on; what it cannot do begins a new stream.
        own, before = device["sample_rate"], self._sample_rate
        rate = options.sample_rate or before or own
        try:
            self._start(device, rate)
        except DeviceError:
            if options.sample_rate or rate == own:
                raise
            self._start(device, own)

    def _start(self, device: dict[str, Any], rate: int) -> None:
        """Listen at a rate, with a ring and a capture clock of its own."""
        options = self._options
        columns = max(options.channels)
        ring = AudioRing(round(options.buffer_s * rate), columns)
        self._intake = LiveInput(
            ring,
            CaptureClock(rate, options.max_slip_ms),
            self._channels,
            self._clock,
            longest=max(options.block_length or 0, rate // 10),
        )
        self._buffer_s = device[f"latency_{options.latency}_ms"] / 1000
        self._fresh_start = StaleAudioFilter(rate)
        self._heard_ns = self._clock.monotonic_ns()
        self._closing = False
        known, self._sample_rate = self._sample_rate, rate  # the callback needs it
        try:
            self._stream = open_input(
                device,
                rate,
                columns,
                blocksize=options.block_length or 0,
                latency=options.latency,
                callback=self._hear,
                finished_callback=ring.close,
            )
        except DeviceError:
            self._sample_rate = known
            raise

    def _hear(self, samples: Any, n_samples: int, time: Any, status: Any) -> None:
        """PortAudio's callback: copy, count, return."""
        intake, rate = self._intake, self._sample_rate
        assert intake is not None
        assert rate is not None
        ring, capture = intake.ring, intake.capture
        now = self._heard_ns = self._clock.monotonic_ns()
        if self._fresh_start.leaves_out(n_samples, now):
            return
        # Both times are PortAudio's, so that it matters neither which clock they
        # are of nor whether that clock is being set. Some hosts leave them 0;
        # sound servers may report a backlog of their own, which then fades: no
        # sample is older than the device's buffer and the block itself.
        heard_at_s, length_s = time.inputBufferAdcTime, n_samples / rate
        age_s = time.currentTime - heard_at_s
        if heard_at_s <= 0.0 or not 0.0 <= age_s < _PLAUSIBLE_S:
            age_s = length_s
        age_s = min(age_s, self._buffer_s + 2 * length_s)
        # Hosts flag the first block when the device ran before we listened.
        broken = bool(status.input_overflow) and capture.anchor is not None
        missing = capture.update(n_samples, now - round(age_s * NS), broken)
        if broken:
            self.overflows += 1
            ring.lose(missing, GAP_DEVICE_OVERFLOW)
        elif missing:
            ring.lose(missing, GAP_DEVICE_SLIP)
        ring.write(samples, now)

    def read(self, timeout: float) -> SourceItem | None:
        """Return what was heard since the last call, or None after `timeout`.

        Raises
        ------
        Disconnected
            The device stopped or delivers nothing any more.
        """
        if self._intake is None:
            raise EndOfStream
        try:
            item = self._intake.read(timeout)
        except EndOfStream:
            if self._closing:
                raise
            raise Disconnected(
                f"device '{self._name}' stopped: is it still connected?"
            ) from None
        if item is None:
            self._check_stall()
        return item

    def _check_stall(self) -> None:
        if self._closing:
            return
        silent_s = (self._clock.monotonic_ns() - self._heard_ns) / NS
        if silent_s > self._options.stall_timeout_s:
            raise Disconnected(
                f"device '{self._name}' has delivered nothing for {silent_s:.1f} s: "
                "is it still connected?"
            )

    def close(self) -> None:
        """Stop listening; what was heard until now can still be read."""
        self._closing = True
        if self._stream is not None:
            stream, self._stream = self._stream, None
            close_input(stream)
        if self._intake is not None:
            self._intake.ring.close()


def _build(options: MicrophoneOptions, context: BuildContext) -> MicrophoneSource:
    return MicrophoneSource(options, context)


def _resources(options: MicrophoneOptions) -> frozenset[str]:
    name = "default" if options.device is None else options.device
    return frozenset([f"device:{name}"])


def _check(options: MicrophoneOptions, context: BuildContext) -> Iterator[str]:
    problem = channels_problem(options.channels)
    if problem:
        yield problem
        return
    try:
        device = find_device(options.device)
    except DeviceError as error:
        yield TransientProblem(error)
        return
    highest = max(options.channels)
    if highest > device["channels"]:
        yield (
            f"device '{device['name']}' has {device['channels']} input channels, "
            f"there is no channel {highest}"
        )


plugin = Plugin(
    kind="source",
    options=MicrophoneOptions,
    build=_build,
    summary="A sound card, by way of PortAudio",
    resources=_resources,
    check=_check,
    devices=input_devices,
)
