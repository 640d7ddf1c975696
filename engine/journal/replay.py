"""Running a recorded run again, and comparing every event byte for byte."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator

from neurovocal.engine.contracts.stages import ModelCommand, RecordedCommand
from neurovocal.engine.contracts.types import SONG_CLOCK_STAGE, Message
from neurovocal.engine.journal.store import Recorded
from neurovocal.engine.wire.codec import event_json, payload_of

Key = tuple[str, str, int]

# What a run says of its own time and health is not of the audio.
TIMED_KINDS = frozenset({"anchor", "health", "stats"})
# This ended a run; it is not what was heard.
_NOT_AGAIN = frozenset({"stop"})
# While a live source stalls, these follow the machine's clock.
_SONG_KINDS = frozenset({"synthesis", "audio"})


class ReplayComparison:
    """A sink that compares what a lane says now with what was recorded.

    Events are matched by kind, stream and number, so that the order in which
    independent lanes were recorded does not matter.

    Parameters
    ----------
    recorded : iterable of Recorded
        Events of the recorded run.
    kinds : frozenset of str
        Kinds that the journal was to keep.
    also_wants : frozenset of str
        Kinds that other sinks of the recorded run asked for: they decide what
        a lane computes, so they are asked for again.

    Attributes
    ----------
    stalled : set of str
        Streams whose songs followed the machine's clock at times: when their frames
        came cannot be repeated, so their synthesis and sound are not compared.
    """

    def __init__(
        self,
        recorded: Iterable[Recorded],
        kinds: frozenset[str],
        also_wants: frozenset[str] = frozenset(),
    ) -> None:
        self.kinds = kinds - TIMED_KINDS
        self.wants = self.kinds | also_wants
        self.identical: Counter[str] = Counter()
        self.differences: list[str] = []
        self.stalled: set[str] = set()
        self._digests: dict[Key, bytes] = {}
        for event in recorded:
            if _tells_of_a_stall(event):
                self.stalled.add(event.stream)
            elif event.kind in self.kinds and not _ended_it(event):
                key = (event.kind, event.stream, event.seq)
                self._digests[key] = _digest(event.header, event.payload)
        for key in [key for key in self._digests if self._untimed(key)]:
            del self._digests[key]

    def open(self) -> None:
        """Nothing to acquire."""

    def write(self, message: Message) -> None:
        """Compare one event."""
        if message.kind not in self.kinds:
            return
        key = (message.kind, message.info.stream, message.seq)
        if self._untimed(key):
            return
        header = event_json(message)
        recorded = self._digests.pop(key, None)
        if recorded == _digest(header, payload_of(message)):
            self.identical[message.kind] += 1
            return
        what = "was not recorded" if recorded is None else "differs from the recorded"
        self.differences.append(f"{_name(key)} {what}: {header.decode()}")

    def flush(self, timeout: float) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to release."""

    def _untimed(self, key: Key) -> bool:
        kind, stream, _ = key
        return kind in _SONG_KINDS and stream in self.stalled

    def missing(self) -> list[str]:
        """Recorded events that did not come again."""
        return [f"{_name(key)} did not come again" for key in sorted(self._digests)]


def recalled(recorded: Iterable[Recorded]) -> Iterator[RecordedCommand]:
    """Commands of a recorded run that are to be carried out again."""
    for event in recorded:
        if event.kind == "control":
            header = json.loads(event.header)
            if header["command"] not in _NOT_AGAIN:
                command = ModelCommand(
                    header["command"], header["model"], header["arguments"]
                )
                yield RecordedCommand(header["stream"], header["sample"], command)


def _tells_of_a_stall(event: Recorded) -> bool:
    if event.kind != "health":
        return False
    stage: str = json.loads(event.header)["stage"]
    return stage == SONG_CLOCK_STAGE


def _ended_it(event: Recorded) -> bool:
    if event.kind != "control":
        return False
    command: str = json.loads(event.header)["command"]
    return command in _NOT_AGAIN


def _digest(header: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(header + b"\0" + payload, digest_size=16).digest()


def _name(key: Key) -> str:
    kind, stream, seq = key
    return f"{kind} {seq} of '{stream}'"
