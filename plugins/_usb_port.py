"""The USB socket that a sound card is in: what two cards of one name do not share.

Linux numbers cards as they come; the place of the socket in the tree of hubs stays the
same (sysfs: Documentation/driver-api/usb/usb.rst, names of devices).
"""

import re
from pathlib import Path

PREFIX = "usb:"

# As PortAudio names devices of its host ALSA: "UMC404HD: USB Audio (hw:1,0)".
_CARD = re.compile(r"\(hw:(\d+),\d+\)$")
# An interface of a device: bus, sockets from hub to hub, configuration, number.
_INTERFACE = re.compile(r"(\d+-\d+(?:\.\d+)*):\d+\.\d+")
_SYSFS = Path("/sys")


def usb_port(name: str, host: str, root: Path = _SYSFS) -> str | None:
    """Where the card of a device is plugged in now, such as ``usb:1-4.2``.

    Parameters
    ----------
    name, host : str
        Of the device, from PortAudio.
    root : Path
        Where sysfs is.

    Returns
    -------
    str or None
        None: it is no USB card, or not known to be one (another host than ALSA,
        another system than Linux, a name that leads to several cards).
    """
    card = _CARD.search(name)
    if host != "ALSA" or card is None:
        return None
    try:
        place = (root / f"class/sound/card{card[1]}/device").resolve(strict=True)
    except OSError:
        return None
    interface = _INTERFACE.fullmatch(place.name)
    return None if interface is None else PREFIX + interface[1]
