"""Send onsets, offsets, labels and surprise as Open Sound Control messages over UDP."""

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, TypeAlias

import numpy as np
from pydantic import Field, field_validator

from neurovocal.engine import (
    BuildContext,
    Clock,
    ConfigError,
    Label,
    Message,
    Offset,
    Onset,
    Options,
    Plugin,
    StageError,
    Surprise,
)
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.support.calls import Backoff
from neurovocal.engine.support.endpoints import parse_address
from neurovocal.engine.support.text import plain, shortened

_KINDS = frozenset({"onset", "offset", "label", "surprise"})
_ADDRESS = re.compile(r"(/[^\s#*,/?\[\]{}]+)+", re.ASCII)
_MOST_TARGETS = 16
_MOST_CHARS = 1000
_UNKNOWN_MS = -1.0

# Arguments of a message with their types, as OSC 1.0 names them.
_Arguments: TypeAlias = list[tuple[str, Any]]


class OscOptions(Options):
    """Options of the ``osc`` sink."""

    targets: list[str] = Field(default=["127.0.0.1:9000"], min_length=1)
    """Programs that get the messages, each `HOST:PORT`; at most 16."""
    address: str = "/neurovocal"
    """Beginning of all addresses, such as `/neurovocal/label`."""

    @field_validator("targets")
    @classmethod
    def _are_few(cls, value: list[str]) -> list[str]:
        if len(value) > _MOST_TARGETS:
            raise ValueError(f"at most {_MOST_TARGETS} targets")
        return value

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if _ADDRESS.fullmatch(value) is None or len(value) > _MOST_CHARS:
            raise ValueError(
                "an address begins with '/', such as /neurovocal, and holds no blank "
                "and none of # * , ? [ ] { }"
            )
        return value


class OscSink:
    """Sends each event as one message to each target, at once (docs/connect/osc.md).

    UDP tells nothing about its arrival: what is lost on the way is lost, and only what
    this machine could not send is counted. A target whose name is not known is looked
    up again, with pauses of up to 30 s; the others get their messages meanwhile.

    Parameters
    ----------
    options : OscOptions
        Checked options.
    clock : Clock
        Measures how late a message is.
    """

    wants = _KINDS

    def __init__(self, options: OscOptions, clock: Clock) -> None:
        self._options, self._clock = options, clock
        self._targets: list[_Target] = []
        self._is_over = Event()
        self._sent = self._failed = 0
        self._trouble: str | None = None

    def open(self) -> None:
        """Look the targets up and make sockets; go on looking for unknown ones.

        Raises
        ------
        ConfigError
            The library is missing, or a target is no `HOST:PORT`.
        """
        self.close()
        problems = list(_problems(self._options))
        if problems:
            raise ConfigError(problems)
        self._targets = [_Target(name) for name in self._options.targets]
        self._is_over = Event()
        unknown = [target for target in self._targets if not target.look_up()]
        if unknown:
            Thread(
                target=_keep_looking,
                args=(unknown, self._is_over),
                name="nv-osc",
                daemon=True,
            ).start()

    def write(self, message: Message) -> None:
        """Send the message of an event; StageError if the sink is not open."""
        if not self._targets:
            raise StageError("the OSC sink is not open")
        arguments = _arguments_of(message, self._late_ms(message))
        if arguments is None:
            return
        packet = _packet(f"{self._options.address}/{message.kind}", arguments)
        for target in self._targets:
            if target.unknown is not None:
                self._failed += 1
                continue
            self._trouble = target.send(packet)
            if self._trouble is None:
                self._sent += 1
            else:
                self._failed += 1

    def flush(self, timeout: float) -> None:
        """Do nothing: no message waits."""

    def close(self) -> None:
        """Close the sockets. May be called twice."""
        self._is_over.set()
        while self._targets:
            self._targets.pop().close()

    def stats(self) -> dict[str, object]:
        """Return the numbers of messages that were sent and that could not be."""
        return {"sent": self._sent, "failed": self._failed}

    @property
    def trouble(self) -> str | None:
        """Why a target is not known, or the last message could not be sent, or None."""
        unknown = (target.unknown for target in self._targets)
        return next((reason for reason in unknown if reason), self._trouble)

    def _late_ms(self, message: Message) -> float:
        """Return the time since the event's instant; -1 where it is not known."""
        ledger = message.ledger
        if ledger is None or not message.emitted_ns:
            return _UNKNOWN_MS
        since_ms = (self._clock.monotonic_ns() - message.emitted_ns) / 1e6
        return ledger.wait_ms + ledger.queue_ms + ledger.compute_ms + since_ms


class _Target:
    """Program that gets the messages.

    Attributes
    ----------
    unknown : str or None
        Why its name is not known, as a sentence; None: it is known.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        self._connection: socket.socket | None = None
        self._address: Any = None
        self._is_closed = False
        self.unknown: str | None = f"target '{name}' has not been looked up yet"

    def look_up(self) -> bool:
        """Find the address, which may take seconds; return whether it is known."""
        host, port = parse_address(self._name, binds=False)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            family, kind, *_, address = found[0]
            connection = socket.socket(family, kind)
        except OSError as error:
            reason = error.strerror or str(error)
            self.unknown = f"target '{self._name}' is not known: {reason}"
            return False
        connection.setblocking(False)
        with self._lock:
            self._connection, self._address = connection, address
            self.unknown = None
            is_late = self._is_closed
        if is_late:
            self.close()
        return True

    def send(self, packet: bytes) -> str | None:
        """Send a packet; return a sentence if it could not be sent."""
        with self._lock:
            if self._connection is None:
                return f"target '{self._name}' is not known"
            try:
                self._connection.sendto(packet, self._address)
            except OSError as error:
                reason = (error.strerror or "cannot be reached").lower()
                return f"{self._address[0]}:{self._address[1]}: {reason}"
        return None

    def close(self) -> None:
        """Close the socket, also of a lookup that is still going on."""
        with self._lock, suppress(OSError):
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()


def _keep_looking(targets: list[_Target], is_over: Event) -> None:
    """Look targets up until all are known, or the sink is closed."""
    backoff = Backoff()
    while targets and not is_over.wait(backoff.pause_s()):
        targets = [target for target in targets if not target.look_up()]


def _arguments_of(message: Message, late_ms: float) -> _Arguments | None:
    """Return the arguments of an event's message; None: nothing is sent."""
    event = message.event
    stream = ("s", _text(message.info.stream))
    late = ("f", late_ms)
    match event:
        case Onset():
            return [stream, ("i", _int32(event.segment)), ("f", event.score), late]
        case Offset():
            duration_ms = 1000 * (event.sample - event.onset) / message.info.sample_rate
            return [stream, ("i", _int32(event.segment)), ("f", duration_ms), late]
        case Label():
            return [
                stream,
                ("i", _int32(event.segment)),
                ("s", _text(event.unit)),
                ("f", event.posterior),
                ("s", event.status),
                late,
            ]
        case Surprise():
            finite = event.values[np.isfinite(event.values)]
            if not len(finite):
                return None
            return [stream, ("f", float(finite.mean())), ("f", float(finite.max()))]
        case _:
            return None


def _packet(address: str, arguments: _Arguments) -> bytes:
    from pythonosc.osc_message_builder import OscMessageBuilder

    builder = OscMessageBuilder(address=address)
    for kind, value in arguments:
        builder.add_arg(value, kind)
    packet: bytes = builder.build().dgram
    return packet


def _text(name: str) -> str:
    return name[:_MOST_CHARS].encode("utf-8", "backslashreplace").decode()


def _int32(number: int) -> int:
    """Return a number of a segment as OSC can hold it: it begins anew after 2^31."""
    return number % 2**31


def _problems(options: OscOptions) -> Iterator[str]:
    for target in options.targets:
        try:
            parse_address(target, binds=False)
        except ValueError as error:
            yield OptionProblem(
                "targets", f"target '{shortened(plain(target))}': {error}"
            )
    try:
        import pythonosc  # noqa: F401
    except ImportError:
        yield (
            "sink 'osc' needs python-osc, which is not installed: "
            "pip install 'neurovocal[osc]'"
        )


def _all_problems(options: OscOptions, context: BuildContext) -> Iterator[str]:
    yield from _problems(options)
    unsent = sorted(frozenset(context.events or ()) - _KINDS)
    if unsent:
        yield f"sink 'osc' sends no {', '.join(unsent)}: {', '.join(sorted(_KINDS))}"


plugin = Plugin(
    kind="sink",
    options=OscOptions,
    build=lambda options, context: OscSink(options, context.clock),
    summary="sends onsets, offsets, labels and surprise as Open Sound Control (UDP)",
    resources=lambda options: frozenset(
        f"service:osc {target} {options.address}" for target in options.targets
    ),
    check=_all_problems,
)
