"""Comparison of a replay with its recorded run, byte for byte, and its commands."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeAlias, TypeVar

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.stages import ModelCommand, RecordedCommand
from neurovocal.engine.contracts.types import (
    SONG_CLOCK_STAGE,
    STOP_COMMAND,
    Control,
    Event,
    Message,
)
from neurovocal.engine.journal.store import RecordedEvent
from neurovocal.engine.support.strict_json import JsonError
from neurovocal.engine.wire.codec import event_json, payload_of
from neurovocal.engine.wire.headers import ControlHeader, Header, HealthHeader, decoder

HeaderT = TypeVar("HeaderT", bound=Header)
EventKey: TypeAlias = tuple[str, str, int]

# Kinds that do not depend on the audio alone; comparisons are those with a shadow that
# somebody started, and may have dropped.
TIMED_KINDS = frozenset({"anchor", "comparison", "health", "stats"})
# Kinds that follow the wall clock while a live source delivers nothing.
_SONG_KINDS = frozenset({"synthesis", "audio"})


class ReplayComparison:
    """Sink that compares the events of a replay with those of the recorded run.

    Events are matched by kind, stream and number, so that the order of independent
    lanes does not matter.

    Parameters
    ----------
    recorded : iterable of RecordedEvent
        Events of the recorded run.
    kinds : frozenset of str
        Kinds that the journal recorded.
    extra_kinds : frozenset of str
        Kinds that other sinks of the recorded run selected: a lane computes only kinds
        that some sink selects, so they are selected again.

    Attributes
    ----------
    stalled : set of str
        Streams whose generated songs followed the wall clock for a while: the times of
        their frames cannot be repeated, so synthesis and sound are not compared.
    """

    def __init__(
        self,
        recorded: Iterable[RecordedEvent],
        kinds: frozenset[str],
        extra_kinds: frozenset[str] = frozenset(),
    ) -> None:
        self.kinds = kinds - TIMED_KINDS
        self.wants = self.kinds | extra_kinds
        self.identical: Counter[str] = Counter()
        self.differences: list[str] = []
        self.stalled: set[str] = set()
        self._digests: dict[EventKey, bytes] = {}
        for event in recorded:
            if _is_stall(event):
                self.stalled.add(event.stream)
            elif event.kind in self.kinds and not _ends_run(event):
                key = (event.kind, event.stream, event.seq)
                self._digests[key] = _digest(event.header, event.payload)
        for key in [key for key in self._digests if self._is_ignored(key)]:
            del self._digests[key]

    def open(self) -> None:
        """Do nothing: the comparison has no resources."""

    def write(self, message: Message) -> None:
        """Compare one event with the recorded one."""
        if message.kind not in self.kinds or _is_stop(message.event):
            return
        key = (message.kind, message.info.stream, message.seq)
        if self._is_ignored(key):
            return
        header = event_json(message)
        recorded = self._digests.pop(key, None)
        if recorded == _digest(header, payload_of(message)):
            self.identical[message.kind] += 1
            return
        what = "was not recorded" if recorded is None else "differs from the recorded"
        self.differences.append(f"{_name(key)} {what}: {header.decode()}")

    def flush(self, timeout: float) -> None:
        """Do nothing: events are compared at once."""

    def close(self) -> None:
        """Do nothing: the comparison has no resources."""

    def _is_ignored(self, key: EventKey) -> bool:
        kind, stream, _ = key
        return kind in _SONG_KINDS and stream in self.stalled

    def missing(self) -> list[str]:
        """Return a sentence per recorded event that the replay did not produce."""
        return [f"{_name(key)} did not come again" for key in sorted(self._digests)]


def commands_to_replay(recorded: Iterable[RecordedEvent]) -> Iterator[RecordedCommand]:
    """Yield the commands of a recorded run that a replay applies, too."""
    for event in recorded:
        if event.kind == "control":
            header = _header(event, ControlHeader)
            command = ModelCommand(header.command, header.model, header.arguments)
            yield RecordedCommand(header.stream, header.sample, command)


def _is_stall(event: RecordedEvent) -> bool:
    if event.kind != "health":
        return False
    return _header(event, HealthHeader).stage == SONG_CLOCK_STAGE


def _is_stop(event: Event) -> bool:
    return isinstance(event, Control) and event.command == STOP_COMMAND


def _ends_run(event: RecordedEvent) -> bool:
    if event.kind != "control":
        return False
    return _header(event, ControlHeader).command == STOP_COMMAND


def _header(event: RecordedEvent, form: type[HeaderT]) -> HeaderT:
    try:
        header = decoder.read(event.header)
        if not isinstance(header, form):
            raise JsonError(f"it is of kind '{header.kind}'")
    except JsonError as error:
        name = _name((event.kind, event.stream, event.seq))
        raise ConfigError(f"the journal is damaged: {name}: {error}") from error
    return header


def _digest(header: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(header + b"\0" + payload, digest_size=16).digest()


def _name(key: EventKey) -> str:
    kind, stream, seq = key
    return f"{kind} {seq} of '{stream}'"
