"""Announcement of a station's socket or page in the local network, by zeroconf."""

import ipaddress
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, Literal, TypeAlias

from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.zeromq.endpoint import is_loopback

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

log = logging.getLogger("neurovocal")

SERVICE = "_neurovocal._tcp.local."
# What can be found at the port: the events (ZeroMQ), or the page (HTTP).
What: TypeAlias = Literal["events", "page"]
# Bytes of names in that of the service, which has 63.
_STATION_BYTES, _HOST_BYTES = 30, 18
_LABEL_BYTES = 63
_JOIN_S = 3.0
_ANY = ("*", "0.0.0.0", "::")


class Announcement:
    """Tells the network where a socket or page of this station is, until `stop`.

    A socket at the loopback address is announced to programs of this machine alone. A
    network that is not there, or that takes no multicast, is logged and stops nothing.

    Parameters
    ----------
    station : str
        Name of the station.
    what : {'events', 'page'}
        What is found there.
    address : Address
        Where the socket is bound.
    details : mapping of str to str
        Further properties, such as whether keys are needed.
    """

    def __init__(
        self, station: str, what: What, address: Address, details: Mapping[str, str]
    ) -> None:
        self._station, self._what = station, what
        self._address = address
        self._details = dict(details)
        self._zeroconf: Zeroconf | None = None
        self._thread: Thread | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Announce it from a thread: probing for its name takes a second."""
        self._thread = Thread(target=self._announce, name="nv-announce", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell the network that it is gone. May be called twice."""
        self._is_stopped = True
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_JOIN_S)
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            with suppress(Exception):
                zeroconf.close()

    def _announce(self) -> None:
        from zeroconf import Zeroconf

        try:
            zeroconf = Zeroconf(interfaces=interfaces_of(self._address.host))
        except OSError as error:
            log.warning("the station cannot be announced: %s", error)
            return
        try:
            zeroconf.register_service(self._info(), allow_name_change=True)
        except Exception as error:
            log.warning(
                "the station cannot be announced: %s", error or type(error).__name__
            )
            zeroconf.close()
            return
        if self._is_stopped:
            zeroconf.close()
        else:
            self._zeroconf = zeroconf

    def _info(self) -> "ServiceInfo":
        from zeroconf import ServiceInfo

        host = socket.gethostname().partition(".")[0] or "station"
        if is_loopback(self._address.host):
            host += "-loopback"  # whose address is another one than the machine's
        # Two that look for a free name at once would not see each other.
        where = f"{self._what} {self._address.port} {_label(host, _HOST_BYTES)}"
        name = f"{_label(self._station, _STATION_BYTES)} {where}"
        return ServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=self._address.port,
            addresses=[address.packed for address in _addresses(self._address.host)],
            properties={
                "txtvers": "1",
                "station": _cut(self._station, 200),
                "what": self._what,
                "version": version("neurovocal"),
                **self._details,
            },
            server=f"{_label(host, _LABEL_BYTES)}.local.",
        )


def announcement_problems(*, is_tcp: bool = True) -> Iterator[str]:
    """Yield a sentence if an endpoint cannot be announced on this machine."""
    if not is_tcp:
        yield "announce: only a tcp:// endpoint can be found by others"
        return
    try:
        import zeroconf  # noqa: F401
    except ImportError:
        yield (
            "announce needs zeroconf, which is not installed: "
            "pip install 'neurovocal[zeroconf]'"
        )


def interfaces_of(host: str) -> list[str]:
    """Return the addresses of the interfaces on which a host is announced."""
    return [str(address) for address in _addresses(host)]


def _addresses(host: str) -> "list[ipaddress.IPv4Address | ipaddress.IPv6Address]":
    """Return the addresses that others can use for a socket bound to `host`.

    Raises
    ------
    OSError
        The machine has no address in a network, or the host is not known.
    """
    if host not in _ANY:
        name = "127.0.0.1" if host == "lo" else host
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        known = [
            ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found
        ]
        return known[:1]
    addresses = [one for one in _own_addresses() if not one.is_loopback]
    if not addresses:
        raise OSError("this machine has no address in a network")
    return addresses


def _own_addresses() -> "list[ipaddress.IPv4Address | ipaddress.IPv6Address]":
    import ifaddr

    return [
        ipaddress.ip_address(each.ip)
        for adapter in ifaddr.get_adapters()
        for each in adapter.ips
        if isinstance(each.ip, str)  # link-local IPv6 addresses need a scope
    ]


def searched_interfaces() -> list[str]:
    """Return the addresses of all interfaces that stations may be announced on."""
    return [
        str(address)
        for address in _own_addresses()
        if address.version == 4 or is_loopback(str(address))
    ]


def _label(name: str, most: int) -> str:
    """Return a name as one label of DNS: without dots, of at most `most` bytes."""
    clean = "".join("-" if char in ".\\" or char < " " else char for char in name)
    return _cut(clean, most).strip() or "station"


def _cut(name: str, most: int) -> str:
    content = name.encode("utf-8", "backslashreplace")
    return content[:most].decode(errors="ignore")
