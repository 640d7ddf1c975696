"""Messages to a service manager: systemd's ``sd_notify`` protocol.

The protocol is one datagram of ``KEY=value`` lines to a UNIX socket (sd_notify(3)),
which is less code than any library for it.
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger("neurovocal")


class ServiceManager:
    """The service manager that started the process; without one nothing is sent.

    Parameters
    ----------
    address : str, optional
        Path of a UNIX datagram socket; with a leading ``@``, an abstract one.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ
    ) -> "ServiceManager":
        """Return the manager that ``NOTIFY_SOCKET`` names, if any."""
        return cls(environment.get("NOTIFY_SOCKET"))

    def send_ready(self) -> None:
        """Report that all sinks and sources are open and lanes run."""
        self._send("READY=1")

    def send_alive(self, status: str) -> None:
        """Report that all lanes make progress; `status` is one line for people."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def send_status(self, status: str) -> None:
        """Send one line for people, without a watchdog message."""
        self._send(f"STATUS={status}")

    def send_stopping(self) -> None:
        """Report that the run ends."""
        self._send("STOPPING=1")

    def _send(self, lines: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.sendto(lines.encode(), address)
        except OSError as error:
            # A manager that went away must not end the run.
            log.debug("NOTIFY_SOCKET takes nothing: %s", error)
