"""Source that captures from a sound card with PortAudio."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from neurovocal.engine import (
    NS,
    BuildContext,
    Channels,
    DeviceError,
    Disconnected,
    EndOfStream,
    LiveInput,
    LiveSource,
    Options,
    Plugin,
    SourceItem,
    StreamInfo,
    TransientProblem,
    channels_problem,
)
from neurovocal.engine.audio.live_input import StaleAudioFilter, buffer_problem
from neurovocal.engine.contracts.options import (
    DAY_MS,
    DAY_S,
    ChannelNumber,
    DeviceNumber,
    OptionProblem,
    SampleRate,
)
from neurovocal.engine.contracts.types import GAP_DEVICE_OVERFLOW, GAP_DEVICE_SLIP
from neurovocal.plugins.devices.choice import find_again, find_device
from neurovocal.plugins.devices.portaudio import input_devices, open_input

_PLAUSIBLE_AGE_S = 10.0  # of a block, as the device reports it


class MicrophoneOptions(Options):
    """Options of the ``microphone`` source."""

    device: str | DeviceNumber | None = None
    """Name of the input device or a part of it, its USB port, such as `usb:1-4.2`, or
    its number in `neurovocal devices`; by default the system's."""
    sample_rate: SampleRate | None = None
    """Hz; by default the device's own."""
    channels: list[ChannelNumber] = [1]
    """Channels to use, counted from 1. Each is labelled by itself unless `mix`
    is set."""
    mix: bool = False
    """Average the channels that were asked for to one."""
    block_length: int | None = Field(default=None, ge=16, le=2**20)
    """Samples that the device delivers at once; by default it chooses."""
    latency: Literal["low", "high"] = "high"
    """PortAudio's buffering: `high` survives a busy machine, `low` answers
    some tens of milliseconds sooner."""
    buffer_s: float = Field(default=5.0, ge=0.1, le=600)
    """Seconds of audio that can wait while the machine is busy."""
    stall_timeout_s: float = Field(default=5.0, ge=0.1, le=DAY_S)
    """Seconds without a sample after which the device counts as gone."""
    max_slip_ms: float | None = Field(default=200.0, gt=0, le=DAY_MS)
    """How far the count of samples may lag behind the clock before samples are
    declared missing; null: never."""


class MicrophoneSource(LiveSource):
    """Source that captures from an input device.

    PortAudio's callback copies into a ring and returns; `read` takes items from it.

    Attributes
    ----------
    overflows : int
        Number of times the device reported lost samples.
    """

    live = True

    def __init__(self, options: MicrophoneOptions, context: BuildContext) -> None:
        super().__init__(context, Channels(options.channels, options.mix))
        self._options = options
        self._sample_rate = options.sample_rate
        self._name = "" if options.device is None else str(options.device)
        self._device: dict[str, Any] | None = None
        self._stream: Any = None
        self._closing = False
        self.overflows = 0

    @property
    def info(self) -> StreamInfo:
        """The stream; its rate may be known only after `open`."""
        if self._sample_rate is None:
            raise RuntimeError("the device's own sample rate is known once it is open")
        return self._stream_info(self._sample_rate)

    def open(self) -> None:
        """Find the device, open it and start capturing.

        Raises
        ------
        DeviceError
            PortAudio or the device is missing, the device is busy or does not
            support the options.
        """
        self.close()
        options = self._options
        # A device that was opened before is found by its name: its number and the
        # system's default change when devices are unplugged.
        known = self._device
        device = find_device(options.device) if known is None else find_again(known)
        self._device, self._name = device, device["name"]
        # A device that returns with another default rate is opened at the previous one,
        # so that the stream continues; if it cannot, a new stream begins.
        default_rate = device["sample_rate"]
        rate = options.sample_rate or self._sample_rate or default_rate
        try:
            self._start(device, rate)
        except DeviceError:
            if options.sample_rate or rate == default_rate:
                raise
            self._start(device, default_rate)

    def _start(self, device: dict[str, Any], rate: int) -> None:
        """Start capturing at a rate in Hz, with a new ring and capture clock."""
        options = self._options
        device_channels = max(options.channels)
        self._input = LiveInput(
            self._clock,
            self._channels,
            sample_rate=rate,
            device_channels=device_channels,
            buffer_s=options.buffer_s,
            max_slip_ms=options.max_slip_ms,
            longest=max(options.block_length or 0, rate // 10),
        )
        self._device_buffer_s = device[f"latency_{options.latency}_ms"] / 1000
        self._stale_audio = StaleAudioFilter(rate)
        self._closing = False
        # The callback, which may run before `open_input` returns, needs the rate.
        previous_rate, self._sample_rate = self._sample_rate, rate
        try:
            self._stream = open_input(
                device,
                rate,
                device_channels,
                blocksize=options.block_length or 0,
                latency=options.latency,
                callback=self._on_block,
                finished_callback=self._input.ring.close,
            )
        except DeviceError:
            self._sample_rate = previous_rate
            raise

    def _on_block(self, samples: Any, n_samples: int, time: Any, status: Any) -> None:
        """Copy a block into the ring: PortAudio's callback."""
        live, rate = self._input, self._sample_rate
        assert live is not None
        assert rate is not None
        ring, capture = live.ring, live.capture
        now = live.last_arrival_ns = self._clock.monotonic_ns()
        if self._stale_audio.is_stale(n_samples, now):
            return
        # Both times are PortAudio's: only their difference counts, whatever their
        # clock. Some hosts leave them 0; sound servers may report a backlog of their
        # own, which then fades: no sample is older than the device's buffer and the
        # block itself.
        captured_s, length_s = time.inputBufferAdcTime, n_samples / rate
        age_s = time.currentTime - captured_s
        if captured_s <= 0.0 or not 0.0 <= age_s < _PLAUSIBLE_AGE_S:
            age_s = length_s
        age_s = min(age_s, self._device_buffer_s + 2 * length_s)
        # Hosts set the flag on the first block if the device ran before the capture.
        broken = bool(status.input_overflow) and capture.anchor is not None
        missing = capture.update(n_samples, now - round(age_s * NS), broken)
        if broken:
            self.overflows += 1
            ring.declare_lost(missing, GAP_DEVICE_OVERFLOW)
        elif missing:
            ring.declare_lost(missing, GAP_DEVICE_SLIP)
        ring.write(samples, now)

    def read(self, timeout: float) -> SourceItem | None:
        """Return the next item, or None if none came within `timeout` seconds.

        Raises
        ------
        Disconnected
            The device stopped or no longer delivers samples.
        """
        if self._input is None:
            raise EndOfStream
        try:
            item = self._input.read(timeout)
        except EndOfStream:
            if self._closing:
                raise
            raise Disconnected(
                f"device '{self._name}' stopped: is it still connected?"
            ) from None
        if item is None and not self._closing:
            name, timeout_s = f"device '{self._name}'", self._options.stall_timeout_s
            self._check_stall(name, timeout_s, ": is it still connected?")
        return item

    def close(self) -> None:
        """Stop capturing; samples that have arrived can still be read."""
        self._closing = True
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()
        if self._input is not None:
            self._input.ring.close()


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
    highest = max(options.channels)
    if options.sample_rate is not None and (
        problem := buffer_problem(options.buffer_s, options.sample_rate, highest)
    ):
        yield OptionProblem("buffer_s", problem)
    try:
        device = find_device(options.device)
    except DeviceError as error:
        yield TransientProblem(error)
        return
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
    sample_rate=lambda options, context: options.sample_rate,
    devices=input_devices,
)
