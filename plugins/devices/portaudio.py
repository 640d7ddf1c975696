"""Audio devices of PortAudio: list them, open streams, find their USB ports."""

import re
from pathlib import Path
from typing import Any, Literal, TypeAlias

from neurovocal.engine import DeviceError
from neurovocal.engine.support.process import mute_libraries
from neurovocal.plugins.devices.streams import (
    Stream,
    exclusive,
    list_again,
    portaudio,
)

Direction: TypeAlias = Literal["input", "output"]

USB_PREFIX = "usb:"
_SYSFS = Path("/sys")
# Name of a device of PortAudio's host ALSA: "UMC404HD: USB Audio (hw:1,0)".
_CARD = re.compile(r"\(hw:(\d+),\d+\)$")
# USB interface of a device: bus, ports from hub to hub, configuration, number.
_INTERFACE = re.compile(r"(\d+-\d+(?:\.\d+)*):\d+\.\d+")
_RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000)
_FAST_RATES = (192_000, 200_000, 250_000, 256_000, 300_000, 384_000, 500_000)


def input_devices() -> list[dict[str, Any]]:
    """List the input devices, as ``neurovocal devices`` shows them.

    Returns
    -------
    list of dict
        ``index, name, channels, sample_rate`` (the device's default in Hz),
        ``latency_low_ms, latency_high_ms, default, host``, and ``port``
        (`usb_port`).

    Raises
    ------
    DeviceError
        PortAudio is not installed.
    """
    return devices("input")


def devices(direction: Direction) -> list[dict[str, Any]]:
    """List the devices of one direction; see `input_devices`.

    Raises
    ------
    DeviceError
        PortAudio is not installed.
    """
    module = portaudio()
    with exclusive():
        list_again(module)
        default = module.default.device[0 if direction == "input" else 1]
        hosts = [dict(host) for host in module.query_hostapis()]
        found = [dict(device) for device in module.query_devices()]
    return [
        {
            "index": device["index"],
            "name": device["name"],
            "channels": device[f"max_{direction}_channels"],
            "sample_rate": round(device["default_samplerate"]),
            "latency_low_ms": _ms(device[f"default_low_{direction}_latency"]),
            "latency_high_ms": _ms(device[f"default_high_{direction}_latency"]),
            "default": device["index"] == default,
            "host": hosts[device["hostapi"]]["name"],
            "port": usb_port(device["name"], hosts[device["hostapi"]]["name"]),
        }
        for device in found
        if device[f"max_{direction}_channels"] > 0
    ]


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)


def open_input(
    device: dict[str, Any], sample_rate: int, channels: int, **options: Any
) -> Stream:
    """Open and start an input stream of float32 samples.

    Raises
    ------
    DeviceError
        The device is busy or does not support the format; the message lists what it
        supports.
    """
    return _open("input", device, sample_rate, channels, options)


def open_output(
    device: dict[str, Any], sample_rate: int, channels: int, **options: Any
) -> Stream:
    """Open and start an output stream of float32 samples; raises as `open_input`."""
    return _open("output", device, sample_rate, channels, options)


def _open(
    direction: Direction,
    device: dict[str, Any],
    sample_rate: int,
    channels: int,
    options: dict[str, Any],
) -> Stream:
    module = portaudio()
    name = device["name"]
    if channels > device["channels"]:
        count = f"{device['channels']} {direction} channel" + "s" * (
            device["channels"] > 1
        )
        raise DeviceError(
            f"device '{name}' has {count}, there is no channel {channels}"
        )
    form = {"device": device["index"], "channels": channels, "dtype": "float32"}
    kind = module.InputStream if direction == "input" else module.OutputStream
    try:
        return Stream(kind, name, samplerate=sample_rate, **form, **options)
    except module.PortAudioError as error:
        rates = _rates(module, direction, form)
        if rates and sample_rate not in rates:
            listing = ", ".join(str(rate) for rate in rates)
            raise DeviceError(
                f"device '{name}' does not take {sample_rate} Hz: it takes {listing} Hz"
            ) from error
        raise DeviceError(
            f"device '{name}' cannot be opened: {_reason(error)}"
        ) from error


# What the sound system said, where PortAudio passes it on.
_DRIVER = re.compile(r"\[PaErrorCode -?\d+\]: '(.+?)'")
# What helps where PortAudio does not say what it lacks.
_OTHER = "unplug it and plug it in again, or choose another (neurovocal devices)"
# PortAudio's messages, whose words presume its manual, in other ones.
_MEANINGS = {
    "Device unavailable": (
        "another program uses it, or it was unplugged: close that program, or plug it "
        "in again"
    ),
    "Illegal combination of I/O devices": (
        "its driver does not open it in this direction: choose another device "
        "(neurovocal devices), or the same one by way of the sound server, such as "
        "'pulse' or 'default'"
    ),
    "Unanticipated host error": f"its driver failed; {_OTHER}",
    "Internal PortAudio error": f"its driver failed; {_OTHER}",
    "Invalid device": f"it is not there any more; {_OTHER}",
    "Insufficient memory": "the system has no memory left for it: close programs",
}


def _rates(module: Any, direction: Direction, form: dict[str, Any]) -> list[int]:
    check = getattr(module, f"check_{direction}_settings")
    found = []
    with exclusive(), mute_libraries():
        for rate in _RATES + _FAST_RATES:
            try:
                check(samplerate=rate, **form)
            except module.PortAudioError:
                continue
            found.append(rate)
    return found


def _reason(error: Exception) -> str:
    """Return why PortAudio does not open a device, and what helps."""
    text = str(error).split(" [PaError")[0]
    for kind in ("InputStream", "OutputStream"):
        text = text.removeprefix(f"Error opening {kind}: ")
    if (driver := _DRIVER.search(str(error))) is not None:
        return f"its driver says '{driver[1]}'; {_OTHER}"
    return _MEANINGS.get(text, f"{text}; {_OTHER}")


def usb_port(name: str, host: str, root: Path = _SYSFS) -> str | None:
    """Return the USB port of a device's sound card, such as ``usb:1-4.2``.

    Parameters
    ----------
    name, host : str
        Name and host API of the device, from PortAudio.
    root : Path
        Folder at which sysfs is mounted.

    Returns
    -------
    str or None
        None if it is no USB card, or not known to be one (another host API than
        ALSA, another system than Linux, a name that matches several cards).
    """
    card = _CARD.search(name)
    if host != "ALSA" or card is None:
        return None
    try:
        path = (root / f"class/sound/card{card[1]}/device").resolve(strict=True)
    except OSError:
        return None
    interface = _INTERFACE.fullmatch(path.name)
    return None if interface is None else USB_PREFIX + interface[1]
