"""Selection of an audio device by name, number or USB port, also after a reconnect."""

import re
from difflib import get_close_matches
from typing import Any

from neurovocal.engine import DeviceError
from neurovocal.plugins.devices.portaudio import USB_PREFIX, Direction, devices

# ALSA puts the number of the card, which may change, into the name.
_CARD = re.compile(r"\s*\((?:plug)?hw:[^)]*\)$")


def find_device(
    wanted: str | int | None, direction: Direction = "input"
) -> dict[str, Any]:
    """Find the device with an index, a USB port, a name or a part of a name.

    Returns
    -------
    dict
        As from `devices`, with ``only_at_port``: True if only its port distinguishes
        it from another device of the same name, or if it was asked for by port.

    Raises
    ------
    DeviceError
        No device fits, or several do; the message lists them.
    """
    found = devices(direction)
    if not found:
        tool = "arecord" if direction == "input" else "aplay"
        raise DeviceError(
            f"no {direction} device was found: connect one and check with '{tool} -l'"
        )
    if wanted is None:
        fitting = [d for d in found if d["default"]] or found[:1]
    elif isinstance(wanted, int):
        fitting = [d for d in found if d["index"] == wanted]
    elif wanted.startswith(USB_PREFIX):
        fitting = [d for d in found if d["port"] == wanted]
    else:
        fitting = [d for d in found if d["name"] == wanted] or [
            d for d in found if wanted.lower() in d["name"].lower()
        ]
    if len(fitting) == 1:
        (device,) = fitting
        twins = any(_is_twin(device, other) for other in found)
        return {**device, "only_at_port": twins or wanted == device["port"]}
    listing = ", ".join(_listed(d) for d in fitting or found)
    if fitting:
        raise DeviceError(
            f"several {direction} devices fit '{wanted}': name one of {listing}"
        )
    close = get_close_matches(str(wanted), [d["name"] for d in found], n=1, cutoff=0.4)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise DeviceError(f"no {direction} device '{wanted}'{hint}; there are: {listing}")


def _is_twin(device: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return True if another card has the same name at another port."""
    names = [_CARD.sub("", d["name"]) for d in (device, other)]
    differs = device["port"] is not None and device["port"] != other["port"]
    return differs and other["host"] == device["host"] and names[0] == names[1]


def _listed(device: dict[str, Any]) -> str:
    at = f" at {device['port']}" if device["port"] else ""
    return f"{device['index']} '{device['name']}'{at}"


def find_again(device: dict[str, Any]) -> dict[str, Any]:
    """Find a device again that was found before; its number may have changed.

    It is found by its host API, name and USB port; if these have changed (another
    port, another number of its card), by its name without the number. A card with
    ``only_at_port`` is found at that port only.

    Raises
    ------
    DeviceError
        It is not connected, or several devices have its name.
    """
    found = [d for d in devices("input") if d["host"] == device["host"]]
    name = _CARD.sub("", device["name"])
    alike = [d for d in found if _CARD.sub("", d["name"]) == name]
    port = device["port"]
    fitting = [d for d in alike if port is not None and d["port"] == port]
    if not fitting and port is not None and device["only_at_port"]:
        raise DeviceError(
            f"device '{name}' is not there: connect it again, at {port} (another of "
            "this name would not be the same)"
        )
    # At one port, the number still distinguishes several devices of one card.
    fitting = fitting or alike
    same = [d for d in fitting if d["name"] == device["name"]]
    if len(same) == 1 and len({d["port"] for d in fitting}) == 1:
        fitting = same
    if len(fitting) == 1:
        return {**fitting[0], "only_at_port": device["only_at_port"]}
    if fitting:
        raise DeviceError(f"{len(fitting)} devices are called '{name}' now: unplug one")
    raise DeviceError(f"device '{name}' is not there: connect it again")
