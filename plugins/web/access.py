"""Who may open the page: addresses, credentials, sessions, and limits of attempts."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from threading import Lock
from time import monotonic

from neurovocal.engine.support.endpoints import Address, parse_address
from neurovocal.plugins.zeromq.endpoint import is_loopback

_ALL_INTERFACES = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
DEFAULT_ENDPOINT = "127.0.0.1:8420"
_SHORTEST_TOKEN, _SHORTEST_PASSWORD = 16, 8
_LONGEST_SECRET = 1024

SESSION_S = 12 * 3600.0
_MOST_SESSIONS = 1000

# Failed attempts: so many at once from one address, and from all; then one per so
# many seconds.
_BURST, _REFILL_S = 5, 12.0
_BURST_OF_ALL, _REFILL_OF_ALL_S = 60, 1.0
_MOST_ADDRESSES = 2000

# The page loads nothing from elsewhere and has no script or style in its HTML.
SECURITY_HEADERS: dict[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # By "no-referrer" browsers would send the login form with "Origin: null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a browser must present; without any, everyone who reaches the page may.

    Parameters
    ----------
    token : str or None
        Secret that is enough alone.
    user, password : str or None
        Both together.
    """

    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def are_needed(self) -> bool:
        """Return True if the page asks for credentials."""
        return self.token is not None or self.password is not None

    def problems(self) -> Iterator[str]:
        """Yield a sentence per mistake; none of them holds a secret."""
        hint = (
            "make one by python3 -c 'import secrets; print(secrets.token_urlsafe())' "
            "and name the variable of the environment that holds it, as ${NAME}"
        )
        if self.token is not None and self.token != self.token.strip():
            yield f"the token begins or ends with a space, which none can send: {hint}"
        elif self.token is not None and len(self.token) < _SHORTEST_TOKEN:
            yield (
                f"the token has {len(self.token)} characters, {_SHORTEST_TOKEN} at "
                f"least are needed: {hint}"
            )
        if (self.user is None) != (self.password is None):
            given, missing = ("user", "password")
            if self.user is None:
                given, missing = missing, given
            yield f"a {given} without a {missing}: give both, or a token"
        elif self.password is not None and len(self.password) < _SHORTEST_PASSWORD:
            yield (
                f"the password has {len(self.password)} characters, "
                f"{_SHORTEST_PASSWORD} at least are needed"
            )
        if self.user == "":
            yield "the user has no name"
        for name, secret in (("token", self.token), ("password", self.password)):
            if secret is not None and len(secret) > _LONGEST_SECRET:
                yield f"the {name} is longer than {_LONGEST_SECRET} characters"

    def accept_token(self, token: str) -> bool:
        """Return whether a token is right; the time does not depend on how wrong."""
        return self.token is not None and _is_same(token, self.token)

    def accept_user(self, user: str, password: str) -> bool:
        """Return whether user and password are right, in constant time."""
        if self.user is None or self.password is None:
            return False
        # Both are compared, whether or not the first one is right.
        return _is_same(user, self.user) & _is_same(password, self.password)


def _is_same(given: str, right: str) -> bool:
    """Compare digests: their length tells nothing about that of the secret."""
    first, second = (
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        for text in (given, right)
    )
    return hmac.compare_digest(first, second)


@dataclass(frozen=True, slots=True)
class Access:
    """Rules of a page: its credentials, and whether a proxy stands before it.

    Parameters
    ----------
    credentials : Credentials
        What a browser must present.
    behind_proxy : bool
        Whether ``X-Forwarded-*`` are those of a proxy that can be trusted.
    """

    credentials: Credentials = field(default_factory=Credentials)
    behind_proxy: bool = False


def url_of(address: Address) -> str:
    """Return the address of a page for a browser on this machine."""
    host = address.host.strip("[]")
    host = _ALL_INTERFACES.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{address.port}/"


def access_problems(endpoint: str, access: Access) -> Iterator[str]:
    """Yield a sentence for each mistake in an endpoint and its rules.

    Parameters
    ----------
    endpoint : str
        ``HOST:PORT``.
    access : Access
        Who may open the page there.
    """
    yield from access.credentials.problems()
    try:
        address = parse_address(endpoint, binds=True)
    except ValueError as error:
        yield f"endpoint '{endpoint}': {error}"
        return
    if access.credentials.are_needed:
        return
    remedy = "give a token, or user and password (docs/how-to/page.md)"
    if not is_loopback(address.host):
        yield (
            f"endpoint '{endpoint}' lets other machines see and hear what the engine "
            f"does: bind {DEFAULT_ENDPOINT}, or {remedy}"
        )
    elif access.behind_proxy:
        yield f"a proxy lets other machines open the page: {remedy}"


class AttemptLimit:
    """Limits failed attempts to log in, per address and in all.

    Parameters
    ----------
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._of_all = _Allowance(_BURST_OF_ALL, _REFILL_OF_ALL_S, clock())
        self._of_address: OrderedDict[str, _Allowance] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Return how long an address has to wait for its next attempt, in seconds."""
        now_s = self._clock()
        with self._lock:
            own = self._of_address.get(_network_of(address))
            waits = [one.wait_s(now_s) for one in (self._of_all, own) if one]
        return max(waits)

    def note_failure(self, address: str) -> None:
        """Count a failed attempt of an address."""
        now_s, network = self._clock(), _network_of(address)
        with self._lock:
            own = self._of_address.pop(network, None)
            own = own or _Allowance(_BURST, _REFILL_S, now_s)
            self._of_address[network] = own
            if len(self._of_address) > _MOST_ADDRESSES:
                self._of_address.popitem(last=False)
            for one in (own, self._of_all):
                one.take(now_s)


@dataclass(slots=True)
class _Allowance:
    """Attempts that are left: at most `burst`, one more every `refill_s` seconds."""

    burst: int
    refill_s: float
    since_s: float
    left: float = -1.0

    def __post_init__(self) -> None:
        self.left = float(self.burst)

    def take(self, now_s: float) -> None:
        self._refill(now_s)
        self.left = max(0.0, self.left - 1.0)

    def wait_s(self, now_s: float) -> float:
        self._refill(now_s)
        return 0.0 if self.left >= 1.0 else (1.0 - self.left) * self.refill_s

    def _refill(self, now_s: float) -> None:
        passed_s, self.since_s = now_s - self.since_s, now_s
        self.left = min(float(self.burst), self.left + passed_s / self.refill_s)


def _network_of(address: str) -> str:
    """Return what one visitor has: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        number = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if isinstance(number, IPv6Address):
        if number.ipv4_mapped is not None:
            return str(number.ipv4_mapped)
        return f"{IPv6Address(int(number) >> 64 << 64)}/64"
    return str(number)


class Sessions:
    """Sessions of browsers that have logged in; they end 12 h after their last use.

    Parameters
    ----------
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        # By the digest of the cookie, so that no comparison tells how wrong one is.
        self._used_s: OrderedDict[bytes, float] = OrderedDict()

    def begin(self) -> str:
        """Return the cookie of a new session."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._used_s[_digest(cookie)] = self._clock()
            if len(self._used_s) > _MOST_SESSIONS:
                self._used_s.popitem(last=False)
        return cookie

    def is_valid(self, cookie: str) -> bool:
        """Return whether a cookie is one of a session, which it keeps alive."""
        key, now_s = _digest(cookie), self._clock()
        with self._lock:
            used_s = self._used_s.pop(key, None)
            if used_s is None or now_s - used_s > SESSION_S:
                return False
            self._used_s[key] = now_s
        return True

    def end(self, cookie: str) -> None:
        """Forget a session."""
        with self._lock:
            self._used_s.pop(_digest(cookie), None)


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()


def is_known_host(host: str, address: Address) -> bool:
    """Return whether a request is for this page, by its header ``Host``.

    A page without credentials answers to the names of this machine alone: otherwise a
    site elsewhere could give its own name the address 127.0.0.1, and read the page in
    the browser of whoever visits it (DNS rebinding).
    """
    name = host.rpartition(":")[0] if _has_port(host) else host
    name = name.strip("[]").rstrip(".").lower()
    return is_loopback(name) or name == address.host.strip("[]").lower()


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdecimal() and not host.endswith("]")


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether the page that sent a request is this one, by ``Origin``."""
    scheme, separator, rest = origin.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return False
    default = ":443" if scheme.lower() == "https" else ":80"
    return rest.lower().removesuffix(default) == host.lower().removesuffix(default)
