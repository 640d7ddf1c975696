"""HTTP client of a webhook: one request an event, signed, and what answers mean."""

import base64
import binascii
import hmac
import http.client
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from importlib.metadata import version
from threading import Event, Timer
from urllib.parse import SplitResult

from neurovocal.engine import NS, Clock
from neurovocal.engine.support.text import printable, shortened
from neurovocal.plugins.sinks.integrations.delivery.items import Outgoing
from neurovocal.plugins.sinks.integrations.delivery.worker import Attempt

# Answers that say that this event, and no other, is not wanted. All other failures are
# those of the service, of its address or of the key: the event waits.
_REFUSALS = frozenset({400, 406, 409, 411, 413, 415, 422})
_MOST_ANSWER_BYTES = 64 * 1024
_SECRET_PREFIX = "whsec_"
_FAILURES = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True)
class Endpoint:
    """Address to which events go, and the headers of their requests.

    Parameters
    ----------
    url : SplitResult
        Address; only this one is ever asked.
    headers : mapping of str to str
        Further headers of each request.
    secret : bytes, optional
        Key of the signature; None: requests are not signed.
    ca_file : str, optional
        Certificates to trust instead of the system's.
    timeout_s : float
        Time for a request.
    """

    url: SplitResult
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret: bytes | None = field(default=None, repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0


class WebhookClient:
    """Sends each item in a POST of its own and says whether it was taken.

    No proxy is used and no redirect is followed: nothing but the address of the
    configuration is ever asked.

    Parameters
    ----------
    endpoint : Endpoint
        Where events go.
    clock : Clock
        Gives UTC, for the signature.

    Attributes
    ----------
    name : str
        Scheme, host and port: paths and queries may hold a token.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        url = endpoint.url
        host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        port = f":{url.port}" if url.port else ""
        self.name = f"webhook {url.scheme}://{host}{port}"
        self._endpoint, self._clock = endpoint, clock
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._connection: http.client.HTTPConnection | None = None

    def send(self, items: Sequence[Outgoing]) -> Attempt:
        """Send items one after the other, until one is not taken."""
        refused: list[tuple[Outgoing, str]] = []
        for number, item in enumerate(items):
            try:
                status, reason, retry_after_s = self._post_again(item)
            except _FAILURES as error:
                self.close()
                return Attempt(number, refused, _sentence(error))
            if 200 <= status < 300:
                continue
            answer = f"it answers {status} {shortened(printable(reason))}".rstrip()
            if status not in _REFUSALS:
                hint = _hint(status)
                return Attempt(number, refused, f"{answer}{hint}", retry_after_s)
            refused.append((item, answer))
        return Attempt(len(items), refused)

    def tend(self) -> str | None:
        """Close a connection that is not needed now."""
        self.close()
        return None

    def close(self) -> None:
        """Close the connection. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Make a request that is on its way fail."""
        connection = self._connection
        _cut(None if connection is None else connection.sock)

    def _post_again(self, item: Outgoing) -> tuple[int, str, float | None]:
        """Send one item, twice if the service has closed the connection meanwhile."""
        is_used = self._connection is not None
        try:
            return self._post(item)
        except (ConnectionError, http.client.RemoteDisconnected):
            if not is_used:
                raise
            self.close()
            return self._post(item)

    def _post(self, item: Outgoing) -> tuple[int, str, float | None]:
        """Send one item; return status, reason and the pause that is asked for."""
        connection = self._connected()
        # A timeout of the socket counts from byte to byte: a service that sends one
        # now and then would be waited for without end.
        is_late = Event()
        limit = Timer(self._endpoint.timeout_s, _cut, [connection.sock, is_late])
        limit.daemon = True
        limit.start()
        try:
            connection.request("POST", self._path, item.body, self._headers(item))
            response = connection.getresponse()
            response.read(_MOST_ANSWER_BYTES)
            if not response.isclosed():
                self.close()  # what is left of the answer is not read
        except _FAILURES as error:
            if is_late.is_set():
                raise TimeoutError from error
            raise
        finally:
            limit.cancel()
        pause = _retry_after_s(response.getheader("Retry-After"), self._clock)
        return response.status, response.reason, pause

    def _connected(self) -> http.client.HTTPConnection:
        """Return an open connection; the last one is used again if it still is open."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            return connection
        url, timeout_s = self._endpoint.url, self._endpoint.timeout_s
        host, port = url.hostname or "", url.port
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=self._endpoint.ca_file)
            connection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        self._connection = connection
        connection.connect()
        return connection

    def _headers(self, item: Outgoing) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"neurovocal/{version('neurovocal')}",
            "Idempotency-Key": item.id,
            "webhook-id": item.id,
            **self._endpoint.headers,
        }
        if self._endpoint.secret is not None:
            stamp = str(self._clock.utc_ns() // NS)
            headers["webhook-timestamp"] = stamp
            headers["webhook-signature"] = signature(
                self._endpoint.secret, item.id, stamp, item.body
            )
        return headers


def signature(secret: bytes, name: str, stamp: str, body: bytes) -> str:
    """Return the signature of a request, as Standard Webhooks 1.0 defines it.

    Parameters
    ----------
    secret : bytes
        Key.
    name, stamp : str
        Headers ``webhook-id`` and ``webhook-timestamp`` (seconds since the epoch).
    body : bytes
        Body of the request.
    """
    content = f"{name}.{stamp}.".encode() + body
    digest = hmac.new(secret, content, sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for: ``whsec_`` and base64, or its UTF-8.

    Raises
    ------
    ValueError
        What follows ``whsec_`` is no base64.
    """
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"what follows '{_SECRET_PREFIX}' is no base64") from error


def _retry_after_s(value: str | None, clock: Clock) -> float | None:
    """Return the seconds that a header Retry-After asks for (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value[:9])
    with suppress(ValueError, TypeError):
        when = parsedate_to_datetime(value)
        now = datetime.fromtimestamp(clock.utc_ns() / NS, UTC)
        return max(0.0, (when - now).total_seconds())
    return None


def _hint(status: int) -> str:
    if 300 <= status < 400:
        return ": redirects are not followed, name the address it leads to"
    if status in (401, 403, 407):
        return ": check the headers, or the secret"
    if status in (404, 405, 410):
        return ": check the url"
    return ""


def _sentence(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.HTTPException):
        # Its text quotes the answer, which may repeat the path or a header.
        return f"its answer is no HTTP ({type(error).__name__})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {shortened(printable(str(error)))}"


def _cut(connection: socket.socket | None, is_late: Event | None = None) -> None:
    if is_late is not None:
        is_late.set()
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
