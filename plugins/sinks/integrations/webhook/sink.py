"""Deliver events of a journal to a web service: one HTTP request an event."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr

from neurovocal.engine import BuildContext, ConfigError, Message, Options, Plugin
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.journal.follower import JournalFollower
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import plain, shortened
from neurovocal.plugins.sinks.integrations.delivery.items import (
    Outgoing,
    is_provisional,
)
from neurovocal.plugins.sinks.integrations.delivery.options import (
    DeliveryOptions,
    delivered_kinds,
    delivery_problems,
    read_secret,
    state_path,
)
from neurovocal.plugins.sinks.integrations.delivery.queues import JournalQueue
from neurovocal.plugins.sinks.integrations.delivery.sink import (
    DeliverySink,
    begin_summary,
)
from neurovocal.plugins.sinks.integrations.delivery.state import StateFile
from neurovocal.plugins.sinks.integrations.delivery.worker import (
    DeliveryWorker,
    Refusals,
)
from neurovocal.plugins.sinks.integrations.webhook.client import (
    Endpoint,
    WebhookClient,
    key_of,
)
from neurovocal.plugins.storage.text_file import file_access, file_claim
from neurovocal.plugins.zeromq.endpoint import is_loopback

_NAME = "webhook"
_BATCH = 16
_SHORTEST_SECRET = 8
_MOST_LISTED = 10_000
_REFUSED_END = ".refused.jsonl"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What the sink itself sends, and what HTTP does not let a user choose.
_OWN_HEADERS = frozenset(
    {
        *("connection", "content-length", "content-type", "host", "idempotency-key"),
        *("transfer-encoding", "webhook-id", "webhook-signature", "webhook-timestamp"),
    }
)


class WebhookOptions(DeliveryOptions):
    """Options of the ``webhook`` sink."""

    url: str = Field(min_length=1)
    """Address that gets the requests, `https://HOST/PATH`; `${NAME}` takes one with a
    token from the environment."""
    journal: str = Field(min_length=1)
    """File of the `journal` sink whose events are delivered."""
    headers: dict[str, SecretStr] = {}
    """Further headers, such as `Authorization: "Bearer ${TOKEN}"`."""
    secret: SecretStr | None = None
    """Key of the signature, of 8 characters or more, such as `${WEBHOOK_SECRET}`;
    `whsec_...` is base64."""
    secret_file: str | None = Field(default=None, min_length=1)
    """File that holds the key instead."""
    ca_file: str | None = Field(default=None, min_length=1)
    """Certificates (PEM) to trust instead of those of the system."""
    allow_plain: bool = False
    """Whether headers and secrets may be used on an unencrypted connection to another
    machine."""
    most_per_s: float = Field(default=20.0, ge=0.01, le=10_000)
    """Requests a second, at most."""
    timeout_s: float = Field(default=10.0, ge=0.1, le=600)
    """Time for a request, in seconds."""
    linger_s: float = Field(default=5.0, ge=0, le=600)
    """Time at the end of the run for what is left; the rest goes out in the next."""
    alternatives = (("secret", "secret_file"),)


class WebhookSink(DeliverySink):
    """Delivers each event of the journal at least once (docs/connect/webhook.md).

    Parameters
    ----------
    options : WebhookOptions
        Checked options.
    context : BuildContext
        Clock, name of the station, and kinds of events.
    """

    def __init__(self, options: WebhookOptions, context: BuildContext) -> None:
        path = state_path(options, options.journal, _NAME)
        assert path is not None
        self._state = StateFile(path)
        super().__init__(options.linger_s, self._state)
        self.wants = delivered_kinds(context)
        self._options = options
        self._clock, self._station = context.clock, context.stream
        self._refused_path = refused_path(path)
        accepts_all = options.labels == "all"
        journal = at_home(options.journal)
        self._queue = JournalQueue(
            lambda after: JournalFollower(journal, self.wants, after),
            self._state,
            self._station,
            lambda message: accepts_all or not is_provisional(message),
        )

    def open(self) -> None:
        """Read state and secret, and begin to deliver.

        Raises
        ------
        ConfigError
            State, journal or secret cannot be read.
        """
        self._state.acquire()
        if self._worker is not None:
            self._worker.start()
            return
        options = self._options
        self._queue.open()
        self._worker = DeliveryWorker(
            f"nv-{_NAME}",
            self._queue,
            WebhookClient(self._endpoint(), self._clock),
            self._clock,
            batch=_BATCH,
            most_per_s=options.most_per_s,
            summary=begin_summary(
                options, options.journal, self._station, self._state, self._clock
            ),
            on_finished=self._finished,
        )
        self._worker.start()

    def write(self, message: Message) -> None:
        """Let the delivery look at the journal, which gets the message, too."""
        if self._worker is not None:
            self._worker.wake()

    def stats(self) -> dict[str, object]:
        """Return the counters of the delivery, and those over all runs."""
        state = self._state.state
        own = {} if self._worker is None else self._worker.stats()
        return {**own, "sent_ever": state.delivered, "refused_ever": state.refused}

    @property
    def trouble(self) -> str | None:
        """Why events wait at this moment, or None."""
        worker = None if self._worker is None else self._worker.trouble
        return worker or self._state.trouble

    def _endpoint(self) -> Endpoint:
        options = self._options
        secret = _secret_of(options)
        return Endpoint(
            url=_parsed(options.url),
            headers=_plain(options.headers),
            secret=None if secret is None else key_of(secret),
            ca_file=None if options.ca_file is None else str(at_home(options.ca_file)),
            timeout_s=options.timeout_s,
        )

    def _finished(self, delivered: int, refused: Refusals) -> None:
        state = self._state.state
        state.delivered += delivered
        for item, reason in refused:
            if state.refused < _MOST_LISTED:
                self._list(item, reason)
            state.refused += 1

    def _list(self, item: Outgoing, reason: str) -> None:
        """Add an event that was refused for good to the list of them."""
        line = json.dumps(
            {"id": item.id, "reason": reason, "body": json.loads(item.body)}
        )
        try:
            with self._refused_path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            self._state.trouble = (
                f"'{self._refused_path}' cannot be written: {error.strerror}"
            )


def refused_path(state: Path) -> Path:
    """Return the file that lists events that the service has refused for good."""
    return state.with_name(state.name + _REFUSED_END)


def _parsed(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises
    ------
    ValueError
        It is none of HTTP; the message is a clause that says why.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it holds a character that no address has: quote it as %XX")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it does not begin with https:// or http://")
    if not parts.hostname:
        raise ValueError("it names no host")
    if parts.port == 0:
        raise ValueError("there is no port 0")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a user stands in a header: 'headers: {Authorization: \"Basic ${NAME}\"}'"
        )
    return parts


def _problems(options: WebhookOptions, context: BuildContext) -> Iterator[str]:
    yield from delivery_problems(options, context, options.journal, _NAME)
    try:
        url = _parsed(options.url)
    except ValueError as error:
        yield OptionProblem("url", f"url: {error}")
    else:
        yield from _plain_problems(options, url)
    yield from _header_problems(options)
    try:
        secret = _secret_of(options)
        if secret is not None and len(secret) < _SHORTEST_SECRET:
            raise ValueError(f"it has fewer than {_SHORTEST_SECRET} characters")
        key_of(secret or "")
    except ConfigError as error:
        yield OptionProblem("secret_file", str(error))
    except ValueError as error:
        yield f"the secret cannot be used: {error}"
    if options.ca_file is not None and not at_home(options.ca_file).is_file():
        yield OptionProblem("ca_file", f"ca_file '{options.ca_file}' does not exist")


def _plain(headers: dict[str, SecretStr]) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in headers.items()}


def _secret_of(options: WebhookOptions) -> str | None:
    """Return the secret; ConfigError if its file cannot be read."""
    if options.secret_file is not None:
        return read_secret(options.secret_file, "secret_file")
    return None if options.secret is None else options.secret.get_secret_value()


def _plain_problems(options: WebhookOptions, url: SplitResult) -> Iterator[str]:
    is_plain = url.scheme == "http" and not is_loopback(url.hostname or "")
    names = {name.lower() for name in options.headers}
    if is_plain and "authorization" in names and not options.allow_plain:
        yield OptionProblem(
            "url",
            "the header Authorization would be sent unencrypted to another machine: "
            "use https://, or say 'allow_plain: true'",
        )


def _header_problems(options: WebhookOptions) -> Iterator[str]:
    for name, value in _plain(options.headers).items():
        shown = shortened(plain(name))
        if _TOKEN.fullmatch(name) is None:
            yield OptionProblem("headers", f"'{shown}' is no name of a header")
        elif name.lower() in _OWN_HEADERS:
            yield OptionProblem("headers", f"header '{shown}' is the sink's own")
        elif not (value.isascii() and value.isprintable()):
            yield OptionProblem(
                "headers", f"header '{shown}' holds a character that no header has"
            )


def _written(options: Options) -> list[str]:
    assert isinstance(options, WebhookOptions)
    path = state_path(options, options.journal, _NAME)
    return [] if path is None else [str(path), str(refused_path(path))]


plugin = Plugin(
    kind="sink",
    options=WebhookOptions,
    build=WebhookSink,
    summary="delivers events of the journal to a web service (HTTP POST)",
    resources=lambda options: frozenset(
        {f"service:{_NAME} {_written(options)[0]}"}
    ).union(*map(file_claim, _written(options))),
    check=_problems,
    writes=lambda options, context: file_access(*_written(options)),
)
