"""Trial of one scenario: an engine, its subscriber, and restarts after it ends."""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import EXIT_CONFIG, NeurovocalError
from neurovocal.engine.journal.store import read_events, runs
from neurovocal.engine.rehearsal.comparison import MessageKey
from neurovocal.engine.rehearsal.engine_process import EngineProcess, ReceivedEvent
from neurovocal.engine.rehearsal.sandbox import PLAYBACK, SandboxedConfig, stages_of
from neurovocal.engine.rehearsal.scenarios import Scenario
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.wire.codec import WireError
from neurovocal.engine.wire.headers import (
    Header,
    LabelHeader,
    OffsetHeader,
    decoder,
)

_KINDS = ("label", "offset", "gap", "health", "anchor", "stats")
_WAIT_S = 0.1
# As the shipped systemd unit does it.
_RESTART_S = 2.0
_MOST_RUNS = 4  # an engine that ends again and again does not survive anyhow
_START_S = 60.0  # to load models and open sockets on a busy machine
_CATCH_UP_S = 6.0  # for a subscriber that was cut off or stood still
_POLL_S = 0.1
# Audio after the last vocalization that counts, so that its label has time to come.
_TAIL_S = 1.0


class RecordingSubscriber(Thread):
    """Thread that keeps every message and the time at which it came.

    Parameters
    ----------
    endpoint : str
        Where to subscribe.
    replay : str, optional
        Where to ask for missed messages.
    keys : Path, optional
        Folder with the subscriber's keys.

    Attributes
    ----------
    received : list of (int, Received)
        Monotonic time in ns, message.
    error : Exception or None
        A message that could not be read, or why the subscriber gave up.
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
            log_silence=False,  # a trial kills the engine: the verdict tells what came
        )

    def run(self) -> None:
        """Receive until `stop`."""
        try:
            with self._subscriber as subscriber:
                while not self._stopping.is_set():
                    one = subscriber.receive(_WAIT_S)
                    if one is not None:
                        self.received.append((time.monotonic_ns(), one))
                    if subscriber.malformed:
                        number = subscriber.malformed
                        self.error = WireError(f"{number} messages were malformed")
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Disconnect and wait for the thread's end."""
        self._stopping.set()
        self.join()


@dataclass(slots=True)
class TrialRecord:
    """Events, messages and exit codes of a trial.

    Attributes
    ----------
    events : list of EngineEvent
        Events that the engine passed to its sinks, over all restarts.
    received : list of (int, Received)
        Monotonic time in ns and message of the subscriber; None: there is none.
    journal : list of (str, Header), optional
        Run and header of each event in the journal; None: there is none.
    run_starts_s : dict of str to float
        Seconds into the recording at which each run began.
    origins_ns : dict of str to int
        Monotonic time of the recording's sample 0, as each run's events give it.
    exits : list of int
        Exit code of each run.
    log_lines : list of str
        Last lines of stderr.
    seconds : float
        Seconds of audio that the trial was to last.
    problems : list of str
        Sentences: why the trial itself could not be carried out.
    """

    events: list[ReceivedEvent] = field(default_factory=list)
    received: list[tuple[int, Received]] | None = None
    journal: list[tuple[str, Header]] | None = None
    run_starts_s: dict[str, float] = field(default_factory=dict)
    origins_ns: dict[str, int] = field(default_factory=dict)
    exits: list[int] = field(default_factory=list)
    log_lines: list[str] = field(default_factory=list)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[ReceivedEvent]:
        """Return the events of one kind."""
        return [one for one in self.events if one.header.kind == kind]


class Trial:
    """Runs a sandboxed configuration with the fault of a scenario.

    Parameters
    ----------
    scenario : Scenario
        The fault to inject.
    sandboxed : SandboxedConfig
        The configuration to run.
    folder, base : Path
        Folder to write it to, and folder that relative names in it start from.
    seconds : float
        Seconds of audio to play.
    stopping : Flag
        Set when the trial is to be given up.
    """

    def __init__(
        self,
        scenario: Scenario,
        sandboxed: SandboxedConfig,
        folder: Path,
        base: Path,
        seconds: float,
        stopping: Flag,
    ) -> None:
        self._scenario = scenario
        self._sandboxed = sandboxed
        self._folder = folder
        self._base = base
        self._seconds = seconds
        self._stopping = stopping
        self._record = TrialRecord(seconds=seconds)
        self._engines: list[EngineProcess] = []

    def run(self) -> TrialRecord:
        """Play the recording, restart the engine where it ends, return the record."""
        sandboxed, record = self._sandboxed, self._record
        subscriber = None
        if sandboxed.endpoint is not None:
            subscriber = RecordingSubscriber(
                sandboxed.endpoint, sandboxed.replay, sandboxed.keys
            )
            record.received = subscriber.received
            subscriber.start()
        try:
            self._start_engine(self._scenario.faults(), 0.0)
            self._run_engines()
            if subscriber is not None and not self._stopping.is_set():
                self._wait_for_subscriber(subscriber)
        finally:
            for engine in self._engines:
                if self._stopping.is_set():
                    engine.kill()
                engine.stop()
            if subscriber is not None:
                subscriber.stop()
        if subscriber is not None and subscriber.error is not None:
            record.problems.append(f"the subscriber failed: {subscriber.error}")
        self._complete_record()
        return record

    def _start_engine(self, faults: Sequence[dict[str, Any]], start_s: float) -> None:
        """Start an engine process at `start_s` seconds into the recording."""
        data = deepcopy(self._sandboxed.data)
        for loc, value in self._scenario.changes.items():
            _put(data, loc, value)
        if faults:
            data["faults"] = [self._with_keys(fault) for fault in faults]
        if start_s:
            for stage in stages_of(data):
                if stage.kind == "source" and stage.name == PLAYBACK:
                    stage.data["options"]["start_s"] = round(start_s, 6)
        config = self._folder / f"config{len(self._engines) or ''}.yaml"
        config.write_text(safe_yaml.dump(data), encoding="utf-8")
        self._engines.append(EngineProcess(config, self._base))
        self._start_s = start_s

    def _with_keys(self, fault: dict[str, Any]) -> dict[str, Any]:
        if fault["fault"] == "subscriber_stall" and self._sandboxed.keys is not None:
            return {**fault, "keys": str(self._sandboxed.keys)}
        return fault

    def _run_engines(self) -> None:
        """Wait for the end of the recording; restart an engine that ends before."""
        first = self._engines[0]
        while not self._stopping.wait(_POLL_S):
            engine = self._engines[-1]
            now = time.monotonic_ns()
            origin_ns = first.origin_ns
            if engine.ended:
                self._note_runs(engine)
                if engine.exit_code in (0, EXIT_CONFIG) or origin_ns is None:
                    return
                if len(self._engines) == _MOST_RUNS or self._stopping.wait(_RESTART_S):
                    return
                now = time.monotonic_ns()
                self._start_engine((), (now - origin_ns) / NS)
            elif engine.origin_ns is None:
                if (now - engine.started_ns) / NS > _START_S:
                    self._record.problems.append(
                        f"the engine published nothing for {_START_S:.0f} s"
                    )
                    return
            else:
                played_s = self._start_s + (now - engine.origin_ns) / NS
                if played_s >= self._seconds + _TAIL_S:
                    return

    def _note_runs(self, engine: EngineProcess) -> None:
        """Record the start and origin of the runs of a process, at its end."""
        origin_ns = engine.origin_ns
        for event in tuple(engine.events):
            self._record.run_starts_s.setdefault(event.run, self._start_s)
            if origin_ns is not None:
                start_ns = round(self._start_s * NS)
                self._record.origins_ns.setdefault(event.run, origin_ns - start_ns)

    def _wait_for_subscriber(self, subscriber: RecordingSubscriber) -> None:
        """Wait until the subscriber has all sent messages, at most 6 s."""
        until = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < until and not self._stopping.wait(_POLL_S):
            sent = {
                message_key(event.run, event.header)
                for engine in self._engines
                for event in tuple(engine.events)
                if isinstance(event.header, LabelHeader | OffsetHeader)
            }
            received = tuple(subscriber.received)
            if sent <= {message_key(one.run, one.header) for _, one in received}:
                return

    def _complete_record(self) -> None:
        record = self._record
        if not self._engines[-1].ended or len(record.run_starts_s) < len(self._engines):
            self._note_runs(self._engines[-1])
        for engine in self._engines:
            record.events += engine.events
            record.log_lines += engine.log_lines
            record.exits.append(engine.exit_code or 0)
        if self._sandboxed.journal is not None:
            record.journal = self._read_journal(self._sandboxed.journal)

    def _read_journal(self, path: Path) -> list[tuple[str, Header]]:
        try:
            return [
                (record.run, decoder.read(event.header))
                for record in runs(path)
                for event in read_events(path, record.run)
                if event.kind in ("label", "offset")
            ]
        except NeurovocalError as error:
            self._record.problems.append(str(error))
            return []


def message_key(run: str, header: Header) -> MessageKey:
    """Return the key of a message, unique among all runs."""
    return run, header.kind, header.stream, header.seq


def _put(data: dict[str, Any], loc: tuple[str, str], value: Any) -> None:
    """Set a value in every lane, or in the whole, with the mappings that lead to it."""
    targets = [data]
    if loc[0] == "signal" and data.get("lanes"):
        targets = data["lanes"]
    for target in targets:
        inner = target.setdefault(loc[0], {}) or {}
        target[loc[0]] = {**inner, loc[1]: value}
