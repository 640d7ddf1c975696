"""Comparison of a replay with its recorded run, byte for byte, and its commands."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TypeAlias, TypeVar

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.stages import ModelCommand, RecordedCommand
from neurovocal.engine.contracts.types import (
    GAP_WORKER_LOST,
    SONG_CLOCK_STAGE,
    STOP_COMMAND,
    Control,
    Event,
    Message,
)
from neurovocal.engine.journal.store import RecordedEvent
from neurovocal.engine.support.strict_json import JsonError
from neurovocal.engine.wire.codec import event_json, payload_of
from neurovocal.engine.wire.headers import (
    ControlHeader,
    GapHeader,
    Header,
    HealthHeader,
    OffsetHeader,
    decoder,
)

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
    later : Counter of str
        Events of the replay, by stream, that come after the last recorded one of their
        kind; they are not among the differences.
    first_later : dict of str to str
        Name of the first of them.
    lost : set of str
        Streams that ended because their worker process was lost.
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
        self.later: Counter[str] = Counter()
        self.first_later: dict[str, str] = {}
        self.lost: set[str] = set()
        self.stalled: set[str] = set()
        ends: dict[str, list[RecordedEvent]] = {}  # streams whose process was lost
        offsets: dict[str, RecordedEvent] = {}
        self._digests: dict[EventKey, bytes] = {}
        for event in recorded:
            if _is_stall(event):
                self.stalled.add(event.stream)
            elif event.kind in self.kinds and not _ends_run(event):
                ends.pop(event.stream, None)  # it went on
                self._digests[_key(event)] = _digest(event.header, event.payload)
                if event.kind == "offset":
                    offsets[event.stream] = event
                elif _is_loss(event):
                    last = offsets.get(event.stream)
                    cut = [last] if last and _is_cut(last, event) else []
                    ends[event.stream] = [event, *cut]
        for stream, made in ends.items():
            self.lost.add(stream)
            for event in made:  # by the loss: the audio has no such events
                del self._digests[_key(event)]
        for key in [key for key in self._digests if self._is_ignored(key)]:
            del self._digests[key]
        self._last: dict[tuple[str, str], int] = {}
        for kind, stream, seq in self._digests:
            topic = kind, stream
            self._last[topic] = max(seq, self._last.get(topic, seq))

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
        if recorded is None and message.seq > self._last.get(key[:2], -1):
            stream = message.info.stream
            self.later[stream] += 1
            self.first_later.setdefault(stream, f"{message.kind} {message.seq}")
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


def later_sentence(comparison: ReplayComparison, streams: Collection[str]) -> str:
    """Name and count the events of streams after the last recorded ones."""
    n = sum(comparison.later[stream] for stream in streams)
    events = "1 event" if n == 1 else f"{n:,} events"
    if len(streams) > 1:
        return f"{events} of {len(streams)} streams after the last recorded ones"
    (stream,) = streams
    first = comparison.first_later[stream]
    return f"{events} of '{stream}' after the last recorded one, from {first} on"


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


def _is_loss(event: RecordedEvent) -> bool:
    if event.kind != "gap":
        return False
    return _header(event, GapHeader).reason == GAP_WORKER_LOST


def _is_cut(offset: RecordedEvent, loss: RecordedEvent) -> bool:
    header = _header(offset, OffsetHeader)
    return header.truncated and header.sample >= _header(loss, GapHeader).start


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


def _key(event: RecordedEvent) -> EventKey:
    return event.kind, event.stream, event.seq


def _name(key: EventKey) -> str:
    kind, stream, seq = key
    return f"{kind} {seq} of '{stream}'"
