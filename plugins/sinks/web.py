"""Show what the engine hears in a browser: the live page."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from neurovocal.engine import (
    KINDS,
    BuildContext,
    Clock,
    ConfigError,
    Message,
    Options,
    Plugin,
    StageError,
)
from neurovocal.engine.support.endpoints import Address, parse_address
from neurovocal.engine.support.names import at_home
from neurovocal.engine.wire.codec import encode
from neurovocal.plugins.web.access import (
    DEFAULT_ENDPOINT,
    Access,
    Credentials,
    access_problems,
    url_of,
)
from neurovocal.plugins.web.steering import EngineControl, control_problems
from neurovocal.plugins.zeromq.discovery.announcement import (
    Announcement,
    announcement_problems,
)

if TYPE_CHECKING:  # what serves the page is loaded when the sources are open
    from neurovocal.plugins.review.server import ReviewPage
    from neurovocal.plugins.web.feed import Show
    from neurovocal.plugins.web.server import PageServer

log = logging.getLogger("neurovocal")

_SHOWN_KINDS = frozenset(KINDS.values()) - {"posteriors", "audio", "block"}
_FLUSH_S = 0.05


class WebOptions(Options):
    """Options of the ``web`` sink."""

    endpoint: str = DEFAULT_ENDPOINT
    """`HOST:PORT` where the page is served (port 0: any free one). Other machines may
    open it only with a token, or user and password."""
    token: SecretStr | None = None
    """Secret of 16 characters or more that opens the page, such as `${PAGE_TOKEN}`."""
    user: str | None = None
    """Name that, with the password, opens the page."""
    password: SecretStr | None = None
    """Password of the user, of 8 characters or more, such as `${PAGE_PASSWORD}`."""
    behind_proxy: bool = False
    """Whether the headers `X-Forwarded-For`, `-Host` and `-Proto` come from a reverse
    proxy that can be trusted; else they are ignored."""
    sound_s: float = Field(default=60.0, ge=0, le=600)
    """Seconds of audio of each stream that are kept in memory, to be listened to on the
    page; 0: none. The privacy gate withholds from the page what it withholds from all
    sinks."""
    journal: str | None = None
    """Journal of this engine, for events that are older than what is in memory, for the
    summary, and for the review of its last hours."""
    control: str | None = None
    """Control socket of this engine, such as `tcp://127.0.0.1:5557`: whoever may open
    the page may then also steer; null: nobody."""
    control_keys: str | None = None
    """Folder made by `neurovocal keys add --control`, for an engine with keys."""
    announce: bool = False
    """Whether the local network is told where the page is (zeroconf), so that
    `neurovocal stations` finds it."""

    @property
    def page(self) -> str:
        """Address of the page for a browser on this machine; empty: not known yet."""
        try:
            address = parse_address(self.endpoint, binds=True)
        except ValueError:
            return ""
        return url_of(address) if address.port else ""


class WebSink:
    """Serves the live page of its engine.

    Parameters
    ----------
    options : WebOptions
        Checked options.
    clock : Clock
        Monotonic time, for the latency ledger.
    run, station : str
        Name of the run, and of the engine.
    """

    def __init__(
        self, options: WebOptions, clock: Clock, run: str, station: str
    ) -> None:
        self._options = options
        self._clock = clock
        self._run = run
        has_sound = options.sound_s > 0
        self.wants = _SHOWN_KINDS | ({"block"} if has_sound else set())
        keys = options.control_keys
        self._control = (
            None
            if options.control is None
            else EngineControl(options.control, None if keys is None else at_home(keys))
        )
        self._show: Show | None = None
        self._server: PageServer | None = None
        self._announcement: Announcement | None = None
        self._station = station
        self._review: ReviewPage | None = None

    def open(self) -> None:
        """Serve the page.

        Raises
        ------
        ConfigError
            The endpoint is in use, or others can reach it without credentials.
        """
        problems = list(_problems(self._options))
        if problems:
            raise ConfigError(problems)
        from neurovocal.plugins.web.feed import Show
        from neurovocal.plugins.web.server import PageServer

        journal = self._options.journal
        path = None if journal is None else at_home(journal)
        if path is not None:
            from neurovocal.plugins.review.server import review_of_run

            self._review = review_of_run(path, self._options.user or "")
        if self._show is None:  # else the last minute is still known
            self._show = Show(
                self._run, self._station, self._options.sound_s, path, self._control
            )
        show = self._show
        address = parse_address(self._options.endpoint, binds=True)
        routes = show.routes(self._pages())
        if self._review is not None:
            routes += self._review.routes()
        server = PageServer(
            address,
            _access(self._options),
            routes,
            every_s=_FLUSH_S,
            task=show.hub.flush_columns,
        )
        server.start()
        self._server = server
        if self._options.announce:
            self._announce(urlsplit(server.url).port or address.port)
        if not address.port:
            log.warning("page: %s (open it in a browser)", server.url)

    def _announce(self, port: int) -> None:
        options = self._options
        host = parse_address(options.endpoint, binds=True).host
        is_open = options.token is None and options.password is None
        details = {"keys": "0" if is_open else "1"}
        self._announcement = Announcement(
            self._station, "page", Address(host, port), details
        )
        self._announcement.start()

    def _pages(self) -> list[str]:
        return [] if self._review is None else ["review"]

    def write(self, message: Message) -> None:
        """Pass a message on to all viewers; StageError if the page is not served."""
        show = self._show
        if show is None or self._server is None or self._server.failure is not None:
            raise StageError("the page is not served")
        show.put(message, lambda: self._header(message))

    def _header(self, message: Message) -> str:
        publish_ms = None
        if message.emitted_ns:
            publish_ms = (self._clock.monotonic_ns() - message.emitted_ns) / 1e6
        return encode(message, self._run, publish_ms)[1].decode()

    def flush(self, timeout: float) -> None:
        """Do nothing: the server sends by itself."""

    def close(self) -> None:
        """Stop serving. May be called twice."""
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            announcement.stop()
        if self._show is not None:
            self._show.hub.close()
        if self._control is not None:
            self._control.close()
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        review, self._review = self._review, None
        if review is not None:
            review.close()

    def describe(self) -> Iterator[str]:
        """Yield a line with the address of the page."""
        yield f"page: {self._options.page or 'at a port that is free'}"

    def stats(self) -> dict[str, object]:
        """Return the number of viewers."""
        return {"viewers": 0 if self._show is None else self._show.hub.n_viewers}


def _access(options: WebOptions) -> Access:
    secrets = (
        None if secret is None else secret.get_secret_value()
        for secret in (options.token, options.password)
    )
    token, password = secrets
    return Access(Credentials(token, options.user, password), options.behind_proxy)


def _problems(options: WebOptions) -> Iterator[str]:
    yield from access_problems(options.endpoint, _access(options))
    if options.announce:
        yield from announcement_problems()
    keys = options.control_keys
    yield from control_problems(
        options.control, None if keys is None else at_home(keys)
    )


def _claim(options: WebOptions) -> frozenset[str]:
    try:
        port = parse_address(options.endpoint, binds=True).port
    except ValueError:
        return frozenset()
    return frozenset({f"tcp:{port}"} if port else ())


def _build(options: WebOptions, context: BuildContext) -> WebSink:
    return WebSink(options, context.clock, context.run, context.stream)


plugin = Plugin(
    kind="sink",
    options=WebOptions,
    build=_build,
    summary="shows spectrogram, labels and health in a browser (the live page)",
    resources=_claim,
    check=lambda options, context: _problems(options),
)
