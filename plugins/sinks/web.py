"""Show what the engine hears in a browser: the live page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from neurovocal.engine import (
    KINDS,
    BuildContext,
    Clock,
    ConfigError,
    Frames,
    Health,
    Message,
    Options,
    Plugin,
    StageError,
    Stats,
    Surprise,
    Synthesis,
    Trace,
)
from neurovocal.engine.contracts.types import BULK_KINDS
from neurovocal.engine.support.endpoints import parse_address
from neurovocal.engine.wire.codec import encode
from neurovocal.plugins.web.access import (
    DEFAULT_ENDPOINT,
    Access,
    Credentials,
    access_problems,
)
from neurovocal.plugins.web.encoding import FrameScale, Station
from neurovocal.plugins.web.viewers import Hub

if TYPE_CHECKING:
    from neurovocal.plugins.web.server import PageServer

_STATION = "s0"
_FLUSH_S = 0.05


class WebOptions(Options):
    """Options of the ``web`` sink."""

    endpoint: str = DEFAULT_ENDPOINT
    """`HOST:PORT` where the page is served (port 0: any free one)."""


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

    wants = frozenset(KINDS.values()) - {"posteriors", "audio", "block"}

    def __init__(
        self, options: WebOptions, clock: Clock, run: str, station: str
    ) -> None:
        self._options = options
        self._clock = clock
        self._run = run
        self._hub = Hub([Station(id=_STATION, name=station)])
        self._server: PageServer | None = None

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
        from neurovocal.plugins.web.live import Live
        from neurovocal.plugins.web.server import PageServer

        self._server = PageServer(
            parse_address(self._options.endpoint, binds=True),
            _access(self._options),
            Live(self._hub).routes(),
            every_s=_FLUSH_S,
            task=self._hub.flush_columns,
        )
        self._server.start()

    def write(self, message: Message) -> None:
        """Pass a message on to all viewers; StageError if the page is not served."""
        if self._server is None:
            raise StageError("the page is not open")
        info, event = message.info, message.event
        if isinstance(event, Frames | Synthesis | Surprise | Trace):
            self._hub.add_columns(
                _STATION, info.stream, self._run, info.sample_rate, event
            )
            return
        if message.kind in BULK_KINDS:
            return
        publish_ms = None
        if message.emitted_ns:
            publish_ms = (self._clock.monotonic_ns() - message.emitted_ns) / 1e6
        _, header, _ = encode(message, self._run, publish_ms)
        if isinstance(event, Stats):
            scale = FrameScale.of_stats(event.values)
            self._hub.set_scale(_STATION, info.stream, scale)
        self._hub.add_event(
            _STATION,
            message.kind,
            info.stream,
            self._run,
            message.seq,
            header.decode(),
            state=event.stage if isinstance(event, Health) else "",
        )

    def flush(self, timeout: float) -> None:
        """Do nothing: the server sends by itself."""

    def close(self) -> None:
        """Stop serving. May be called twice."""
        self._hub.close()
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def stats(self) -> dict[str, object]:
        """Return the number of viewers."""
        return {"viewers": self._hub.n_viewers}


def _access(options: WebOptions) -> Access:
    return Access(Credentials())


def _problems(options: WebOptions) -> Iterator[str]:
    return access_problems(options.endpoint, _access(options))


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
