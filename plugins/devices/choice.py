"""Which sound card is meant, and which one it is when it was gone."""

import re
from difflib import get_close_matches
from typing import Any

from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.plugins.devices.portaudio import PREFIX, Direction, devices

# ALSA puts the number of the card into the name, and numbers change.
_CARD = re.compile(r"\s*\((?:plug)?hw:[^)]*\)$")


def find_device(
    wanted: str | int | None, direction: Direction = "input"
) -> dict[str, Any]:
    """Device of an index, of a USB port, of a name, or of a part of a name.

    Returns
    -------
    dict
        As from `devices`; with ``only_at_port`` where nothing but its port tells it
        from another one of the same name, or it was asked for by port.

    Raises
    ------
    DeviceError
        None or several fit; the message lists what there is.
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
    elif wanted.startswith(PREFIX):
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
    """Whether another card is called the same, and its port tells them apart."""
    names = [_CARD.sub("", d["name"]) for d in (device, other)]
    apart = device["port"] is not None and device["port"] != other["port"]
    return apart and other["host"] == device["host"] and names[0] == names[1]


def _listed(device: dict[str, Any]) -> str:
    at = f" at {device['port']}" if device["port"] else ""
    return f"{device['index']} '{device['name']}'{at}"


def find_again(device: dict[str, Any]) -> dict[str, Any]:
    """Device that was found before, at whatever number it is now.

    By its host, name and USB port; where these have changed (another socket, another
    number of its card), by its name without the number. A card that had a twin, or
    was asked for by its port, is found at that port only.

    Raises
    ------
    DeviceError
        It is not there, or several are called so.
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
    # A number says nothing where a port does, but for several devices of one card.
    fitting = fitting or alike
    same = [d for d in fitting if d["name"] == device["name"]]
    if len(same) == 1 and len({d["port"] for d in fitting}) == 1:
        fitting = same
    if len(fitting) == 1:
        return {**fitting[0], "only_at_port": device["only_at_port"]}
    if fitting:
        raise DeviceError(f"{len(fitting)} devices are called '{name}' now: unplug one")
    raise DeviceError(f"device '{name}' is not there: connect it again")
