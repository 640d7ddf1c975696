"""Finder of stations that announce themselves in the local network."""

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from neurovocal.engine import ConfigError
from neurovocal.engine.support.text import printable, shortened
from neurovocal.plugins.zeromq.discovery.announcement import (
    SERVICE,
    searched_interfaces,
)

# Anyone in the network can announce anything.
_MOST_FOUND = 200
_MOST_CHARS = 100
_ASK_MS = 1000


@dataclass(frozen=True, slots=True)
class FoundStation:
    """Socket or page that a station has announced. Nothing of it has been checked.

    Parameters
    ----------
    station : str
        Name of the station.
    what : str
        ``events`` or ``page``.
    address : str
        ``tcp://HOST:PORT`` for events, ``http://HOST:PORT/`` for a page.
    keys : bool
        Whether a key or a secret is needed.
    version : str
        Version of the engine.
    """

    station: str
    what: str
    address: str
    keys: bool
    version: str


def find_stations(
    seconds: float, interfaces: Sequence[str] | None = None
) -> list[FoundStation]:
    """Return what was announced within some seconds, sorted by name.

    Parameters
    ----------
    seconds : float
        Time to search. Answers come within 2 s, mostly, and are asked for again after
        1 s and 4 s.
    interfaces : sequence of str, optional
        Addresses of the interfaces to search; None: all.

    Raises
    ------
    ConfigError
        The library is missing, or the network cannot be searched.
    """
    try:
        from zeroconf import ServiceBrowser, Zeroconf
    except ImportError:
        raise ConfigError(
            "stations are found by zeroconf, which is not installed: "
            "pip install 'neurovocal[zeroconf]'"
        ) from None
    try:
        zeroconf = Zeroconf(interfaces=list(interfaces or searched_interfaces()))
    except OSError as error:
        raise ConfigError(f"the network cannot be searched: {error}") from error
    names = _Names()
    try:
        browser = ServiceBrowser(zeroconf, SERVICE, handlers=[names.changed])
        time.sleep(seconds)
        browser.cancel()
        infos = [
            zeroconf.get_service_info(SERVICE, name, _ASK_MS) for name in names.known()
        ]
    finally:
        zeroconf.close()
    found = {each for info in infos if (each := _station_of(info)) is not None}
    return sorted(found, key=lambda one: (one.station, one.what, one.address))


class _Names:
    """Names of services, as the library's thread tells of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._names: set[str] = set()

    def changed(
        self, zeroconf: Any, service_type: str, name: str, state_change: Any
    ) -> None:
        with self._lock:
            if state_change.name == "Removed":
                self._names.discard(name)
            elif len(self._names) < _MOST_FOUND:
                self._names.add(name)

    def known(self) -> list[str]:
        with self._lock:
            return sorted(self._names)


def _station_of(info: Any) -> FoundStation | None:
    """Return what an answer of the network says; None: it is not of this program."""
    if info is None or not info.port:
        return None
    addresses = info.parsed_addresses()
    texts = {
        key.decode(errors="replace"): (value or b"").decode(errors="replace")
        for key, value in info.properties.items()
    }
    what = texts.get("what")
    if not addresses or what not in ("events", "page"):
        return None
    host = _host(addresses)
    scheme, end = ("tcp", "") if what == "events" else ("http", "/")
    return FoundStation(
        station=_shown(texts.get("station", "")) or "?",
        what=what,
        address=f"{scheme}://{host}:{info.port}{end}",
        keys=texts.get("keys") == "1",
        version=_shown(texts.get("version", "")),
    )


def _host(addresses: Sequence[str]) -> str:
    """Return the first address, of IPv4 if there is one, as an endpoint has it."""
    known = [ipaddress.ip_address(text.partition("%")[0]) for text in addresses]
    best = min(known, key=lambda address: address.version)
    return f"[{best}]" if best.version == 6 else str(best)


def _shown(text: str) -> str:
    return shortened(printable(text[:_MOST_CHARS]))
