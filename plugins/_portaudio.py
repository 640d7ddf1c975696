"""PortAudio's devices: found, named, and asked what they can do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from threading import Lock
from typing import Any

from neurovocal.engine.errors import DeviceError

_RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000)
_FAST_RATES = (192_000, 200_000, 250_000, 256_000, 300_000, 384_000, 500_000)

_lock = Lock()
_open_streams = 0


def portaudio() -> Any:
    """Return the ``sounddevice`` module.

    Raises
    ------
    DeviceError
        PortAudio is not installed.
    """
    try:
        with _quiet():
            import sounddevice
    except OSError as error:
        raise DeviceError(
            "PortAudio is not installed: a microphone needs it "
            "(Debian: apt install libportaudio2)"
        ) from error
    return sounddevice


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the C libraries that report each absent sound card on stderr."""
    silent = os.open(os.devnull, os.O_WRONLY)
    saved = os.dup(2)
    try:
        os.dup2(silent, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(silent)


def input_devices() -> list[dict[str, Any]]:
    """Devices that can be listened to, as ``neurovocal devices`` shows them.

    Returns
    -------
    list of dict
        ``index, name, channels, sample_rate`` (Hz, the device's own),
        ``latency_low_ms, latency_high_ms, default, host``.

    Raises
    ------
    DeviceError
        PortAudio is not installed.
    """
    module = portaudio()
    _refresh(module)
    default = module.default.device[0]
    hosts = module.query_hostapis()
    return [
        {
            "index": device["index"],
            "name": device["name"],
            "channels": device["max_input_channels"],
            "sample_rate": round(device["default_samplerate"]),
            "latency_low_ms": round(device["default_low_input_latency"] * 1e3, 1),
            "latency_high_ms": round(device["default_high_input_latency"] * 1e3, 1),
            "default": device["index"] == default,
            "host": hosts[device["hostapi"]]["name"],
        }
        for device in module.query_devices()
        if device["max_input_channels"] > 0
    ]


def _refresh(module: Any) -> None:
    """Look for devices anew: PortAudio lists them only when it starts.

    Not while a stream is open, which starting again would tear down.
    """
    with _lock:
        if _open_streams == 0:
            with _quiet():
                module._terminate()
                module._initialize()


def find_device(wanted: str | int | None) -> dict[str, Any]:
    """Device of an index, of a name, or of a part of a name.

    Raises
    ------
    DeviceError
        None or several fit; the message lists what there is.
    """
    devices = input_devices()
    if not devices:
        raise DeviceError(
            "no input device was found: connect one and check it with 'arecord -l'"
        )
    if wanted is None:
        fitting = [d for d in devices if d["default"]] or devices[:1]
    elif isinstance(wanted, int):
        fitting = [d for d in devices if d["index"] == wanted]
    else:
        fitting = [d for d in devices if d["name"] == wanted] or [
            d for d in devices if wanted.lower() in d["name"].lower()
        ]
    if len(fitting) == 1:
        return fitting[0]
    listing = ", ".join(f"{d['index']} '{d['name']}'" for d in fitting or devices)
    if fitting:
        raise DeviceError(
            f"several input devices fit '{wanted}': name one of {listing}"
        )
    close = get_close_matches(
        str(wanted), [d["name"] for d in devices], n=1, cutoff=0.4
    )
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise DeviceError(f"no input device '{wanted}'{hint}; there are: {listing}")


def open_input(
    device: dict[str, Any], sample_rate: int, channels: int, **options: Any
) -> Any:
    """Open and start an input stream of float32 samples.

    Raises
    ------
    DeviceError
        The device is busy or cannot do what is asked; the message says what it
        can.
    """
    module = portaudio()
    name = device["name"]
    if channels > device["channels"]:
        has = f"{device['channels']} input channel" + "s" * (device["channels"] > 1)
        raise DeviceError(f"device '{name}' has {has}, there is no channel {channels}")
    form = {"device": device["index"], "channels": channels, "dtype": "float32"}
    stream = None
    _count_streams(+1)
    try:
        with _quiet():
            stream = module.InputStream(samplerate=sample_rate, **form, **options)
            stream.start()
    except module.PortAudioError as error:
        if stream is not None:
            stream.close(ignore_errors=True)
        _count_streams(-1)
        rates = _rates(module, form)
        if rates and sample_rate not in rates:
            listing = ", ".join(str(rate) for rate in rates)
            raise DeviceError(
                f"device '{name}' does not take {sample_rate} Hz: it takes {listing} Hz"
            ) from error
        raise DeviceError(
            f"device '{name}' cannot be opened: {_reason(error)}"
        ) from error
    return stream


def close_input(stream: Any) -> None:
    """End a stream at once; what the device still holds is not waited for."""
    with _quiet():
        stream.abort(ignore_errors=True)
        stream.close(ignore_errors=True)
    _count_streams(-1)


def _count_streams(change: int) -> None:
    global _open_streams
    with _lock:
        _open_streams += change


def _rates(module: Any, form: dict[str, Any]) -> list[int]:
    found = []
    with _quiet():
        for rate in _RATES + _FAST_RATES:
            try:
                module.check_input_settings(samplerate=rate, **form)
            except module.PortAudioError:
                continue
            found.append(rate)
    return found


def _reason(error: Exception) -> str:
    """What PortAudio says, without the number and the call it was about."""
    return str(error).removeprefix("Error opening InputStream: ").split(" [PaError")[0]
