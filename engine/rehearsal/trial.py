"""One exercise carried out: an engine, its subscriber, and who restarts it."""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import yaml

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import EXIT_CONFIG, NeurovocalError
from neurovocal.engine.journal.store import read_events, runs
from neurovocal.engine.rehearsal.comparison import Key
from neurovocal.engine.rehearsal.engine_process import Heard, Life
from neurovocal.engine.rehearsal.sandbox import PLAYBACK, StandIn, stages
from neurovocal.engine.rehearsal.scenarios import Exercise
from neurovocal.engine.wire.codec import WireError
from neurovocal.engine.wire.headers import (
    Header,
    LabelHeader,
    OffsetHeader,
    decoder,
)

_KINDS = ("label", "offset", "gap", "health", "anchor", "stats")
_WAIT_S = 0.1


class Reader(Thread):
    """Notes every message, and when it came.

    Parameters
    ----------
    endpoint : str
        Where to listen.
    replay : str, optional
        Where to ask for what was missed.
    keys : Path, optional
        The subscriber's keys.

    Attributes
    ----------
    received : list of (int, Received)
        Monotonic time in ns, message.
    error : Exception or None
        What the subscriber could not read, or why it gave up.
    """

    def __init__(self, endpoint: str, replay: str | None, keys: Path | None) -> None:
        super().__init__(daemon=True)
        self.received: list[tuple[int, Received]] = []
        self.error: Exception | None = None
        self._stopping = Flag()
        self._subscriber = Subscriber(
            endpoint,
            _KINDS,
            replay=replay,
            start="now" if replay is None else "journal",
            keys=keys,
        )

    def run(self) -> None:
        """Read until `stop`."""
        try:
            with self._subscriber as subscriber:
                while not self._stopping.is_set():
                    try:
                        one = subscriber.receive(_WAIT_S)
                    except WireError as error:
                        self.error = error
                        continue
                    if one is not None:
                        self.received.append((time.monotonic_ns(), one))
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Disconnect."""
        self._stopping.set()
        self.join()


# As the shipped systemd unit does it.
_RESTART_S = 2.0
_MOST_LIVES = 4  # one that ends again and again does not survive anyhow
_START_S = 60.0  # to load models and open sockets on a busy machine
_CATCH_UP_S = 6.0  # for a subscriber that was cut off or stood still
_LOOK_S = 0.1

# What is heard after the last sound that counts, so that its label has time to come.
_AFTERGLOW_S = 1.0


@dataclass(slots=True)
class Record:
    """What came of an exercise.

    Attributes
    ----------
    told : list of Heard
        What the engine sent, before any sink, in all its lives.
    received : list of (int, Received)
        What the subscriber has, and when it came; None: there is no subscriber.
    journal : list of (str, Header), optional
        What the journal holds: run and header; None: there is none.
    starts_s : dict of str to float
        Where in the recording each run began.
    began_ns : dict of str to int
        When the recording's sample 0 was played, by each run's clock.
    exits : list of int
        Exit codes of all lives but the last, and that of the last.
    said : list of str
        Last lines of stderr.
    seconds : float
        Of audio that were to be heard.
    trouble : list of str
        What kept the exercise itself from being carried out, in sentences.
    """

    told: list[Heard] = field(default_factory=list)
    received: list[tuple[int, Received]] | None = None
    journal: list[tuple[str, Header]] | None = None
    starts_s: dict[str, float] = field(default_factory=dict)
    began_ns: dict[str, int] = field(default_factory=dict)
    exits: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0
    trouble: list[str] = field(default_factory=list)

    def events(self, kind: str) -> list[Heard]:
        """What the engine told of one kind."""
        return [one for one in self.told if one.header.kind == kind]


class Trial:
    """Carries out an exercise.

    Parameters
    ----------
    exercise : Exercise
        What is to go wrong.
    stand_in : StandIn
        The configuration that is run.
    folder, base : Path
        Where it is written, and where relative names in it start from.
    seconds : float
        Seconds of audio that are heard.
    stopping : Flag
        Set when nobody wants to know any more.
    """

    def __init__(
        self,
        exercise: Exercise,
        stand_in: StandIn,
        folder: Path,
        base: Path,
        seconds: float,
        stopping: Flag,
    ) -> None:
        self._exercise = exercise
        self._stand_in = stand_in
        self._folder = folder
        self._base = base
        self._seconds = seconds
        self._stopping = stopping
        self._record = Record(seconds=seconds)
        self._lives: list[Life] = []

    def run(self) -> Record:
        """Play, break, go on; what came of it."""
        stand_in, record = self._stand_in, self._record
        reader = None
        if stand_in.endpoint is not None:
            reader = Reader(stand_in.endpoint, stand_in.replay, stand_in.keys)
            record.received = reader.received
            reader.start()
        try:
            self._begin(self._exercise.faults(), 0.0)
            self._live_through()
            if reader is not None and not self._stopping.is_set():
                self._let_catch_up(reader)
        finally:
            for life in self._lives:
                if self._stopping.is_set():
                    life.kill()
                life.end()
            if reader is not None:
                reader.stop()
        if reader is not None and reader.error is not None:
            record.trouble.append(f"the subscriber failed: {reader.error}")
        self._conclude()
        return record

    def _begin(self, faults: Sequence[dict[str, Any]], start_s: float) -> None:
        """Start the engine's process, where in the recording the time has come to."""
        data = deepcopy(self._stand_in.data)
        for loc, value in self._exercise.changes.items():
            _put(data, loc, value)
        if faults:
            data["faults"] = [self._with_keys(fault) for fault in faults]
        if start_s:
            for stage in stages(data):
                if stage.kind == "source" and stage.name == PLAYBACK:
                    stage.data["options"]["start_s"] = round(start_s, 6)
        config = self._folder / f"config{len(self._lives) or ''}.yaml"
        config.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        self._lives.append(Life(config, self._base))
        self._start_s = start_s

    def _with_keys(self, fault: dict[str, Any]) -> dict[str, Any]:
        if fault["fault"] == "subscriber_stall" and self._stand_in.keys is not None:
            return {**fault, "keys": str(self._stand_in.keys)}
        return fault

    def _live_through(self) -> None:
        """Until the recording is over; what ends before is started again."""
        first = self._lives[0]
        while not self._stopping.wait(_LOOK_S):
            life = self._lives[-1]
            now = time.monotonic_ns()
            began_ns = first.began_ns
            if life.ended:
                self._note_life(life)
                if life.exit_code in (0, EXIT_CONFIG) or began_ns is None:
                    return
                if len(self._lives) == _MOST_LIVES or self._stopping.wait(_RESTART_S):
                    return
                now = time.monotonic_ns()
                self._begin((), (now - began_ns) / NS)
            elif life.began_ns is None:
                if (now - life.started_ns) / NS > _START_S:
                    self._record.trouble.append(
                        f"the engine told nothing for {_START_S:.0f} s"
                    )
                    return
            else:
                heard_s = self._start_s + (now - life.began_ns) / NS
                if heard_s >= self._seconds + _AFTERGLOW_S:
                    return

    def _note_life(self, life: Life) -> None:
        """What is known of a run when it has ended, or is about to."""
        began_ns = life.began_ns
        for one in tuple(life.told):
            self._record.starts_s.setdefault(one.run, self._start_s)
            if began_ns is not None:
                start_ns = round(self._start_s * NS)
                self._record.began_ns.setdefault(one.run, began_ns - start_ns)

    def _let_catch_up(self, reader: Reader) -> None:
        """Wait until the subscriber has what the engine has sent, but not for ever."""
        until = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < until and not self._stopping.wait(_LOOK_S):
            sent = {key_of(one.run, one.header) for one in self._sounds()}
            has = {key_of(one.run, one.header) for _, one in tuple(reader.received)}
            if sent <= has:
                return

    def _sounds(self) -> list[Heard]:
        return [
            one
            for life in self._lives
            for one in tuple(life.told)
            if isinstance(one.header, LabelHeader | OffsetHeader)
        ]

    def _conclude(self) -> None:
        record = self._record
        if not self._lives[-1].ended or len(record.starts_s) < len(self._lives):
            self._note_life(self._lives[-1])
        for life in self._lives:
            record.told += life.told
            record.said += life.said
            code = life.exit_code
            record.exits.append(0 if code is None else code)
        if self._stand_in.journal is not None:
            record.journal = self._read_journal(self._stand_in.journal)

    def _read_journal(self, path: Path) -> list[tuple[str, Header]]:
        try:
            return [
                (record.run, decoder.decode(event.header))
                for record in runs(path)
                for event in read_events(path, record.run)
                if event.kind in ("label", "offset")
            ]
        except NeurovocalError as error:
            self._record.trouble.append(str(error))
            return []


def key_of(run: str, header: Header) -> Key:
    """What tells a message from all others."""
    return run, header.kind, header.stream, header.seq


def _put(data: dict[str, Any], loc: tuple[str, str], value: Any) -> None:
    """Set a value in every lane, or in the whole, making what leads there."""
    targets = [data]
    if loc[0] == "signal" and data.get("lanes"):
        targets = data["lanes"]
    for target in targets:
        inner = target.setdefault(loc[0], {}) or {}
        target[loc[0]] = {**inner, loc[1]: value}
