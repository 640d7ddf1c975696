"""Engine subprocess of a rehearsal: its events, its log lines, its exit code."""

import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from threading import Thread
from typing import Generic, TypeVar

import msgspec

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.support.child import OrphanGuard
from neurovocal.engine.support.platform import own_group
from neurovocal.engine.support.strict_json import JsonError
from neurovocal.engine.wire.headers import Header, decoder

_LAST_LINES = 200
_STOP_S = 15.0

HeaderT = TypeVar("HeaderT")


class EngineEvent(msgspec.Struct, Generic[HeaderT], frozen=True):
    """One event of the subprocess, which writes it to stdout as a line of JSON.

    ``time_ns`` is the machine's monotonic clock, which all its processes share.
    """

    run: str
    time_ns: int
    header: HeaderT


ReceivedEvent = EngineEvent[Header]
_line_decoder = msgspec.json.Decoder(EngineEvent[msgspec.Raw])


class EngineProcess:
    """Runs a sandboxed configuration in a process of its own.

    Parameters
    ----------
    config : Path
        File of the configuration.
    base : Path
        Folder that relative names in it start from.

    Attributes
    ----------
    events : list of EngineEvent
        Grows as long as the process runs.
    log_lines : deque of str
        Its last lines on stderr.
    started_ns : int
        Monotonic time at which the process was started.
    """

    def __init__(self, config: Path, base: Path) -> None:
        self.events: list[ReceivedEvent] = []
        self.log_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.started_ns = time.monotonic_ns()
        module = "neurovocal.engine.cli.rehearsal_process"
        # A session of its own: Ctrl-C is for the rehearsal, which then stops it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(config), str(base)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **own_group(),
        )
        self._guard = OrphanGuard(self._process.pid)
        self._threads = [
            Thread(target=read, daemon=True)
            for read in (self._read_events, self._read_log)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> bool:
        """Whether the process has ended, for whatever reason."""
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    @property
    def origin_ns(self) -> int | None:
        """Latest possible monotonic time of its sample 0; None before any event."""
        return min(
            (
                event.time_ns - event.header.at * NS // event.header.sample_rate
                for event in tuple(self.events)
                if event.header.kind != "stats"
            ),
            default=None,
        )

    def stop(self) -> None:
        """Stop the process in order; kill it if it does not end within 15 s."""
        if not self.ended:
            self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self.join()

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        if not self.ended:
            self._process.kill()
        self._process.wait()

    def join(self) -> None:
        """Wait until all that the process wrote has been read."""
        self._guard.close()
        for thread in self._threads:
            thread.join(_STOP_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                return  # the process was killed while it wrote
            try:
                raw = _line_decoder.decode(line)
                header = decoder.read(raw.header)
            except (msgspec.MsgspecError, JsonError):  # something that a plugin prints
                self.log_lines.append(line.decode(errors="replace").rstrip())
                continue
            self.events.append(EngineEvent(raw.run, raw.time_ns, header))

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log_lines.append(line.decode(errors="replace").rstrip())
