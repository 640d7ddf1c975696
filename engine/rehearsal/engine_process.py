"""One life of an engine's process: what it tells, what it says, how it ends."""

import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from threading import Thread

import msgspec

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.wire.headers import Header, decoder

_LAST_LINES = 200
_STOP_S = 15.0


class Told(msgspec.Struct):
    """One event as a process tells of it on stdout: a line of JSON.

    ``heard_ns`` is the machine's monotonic clock, which all its processes share.
    """

    run: str
    heard_ns: int
    header: msgspec.Raw


class Heard(msgspec.Struct, frozen=True):
    """The same, as it was understood."""

    run: str
    heard_ns: int
    header: Header


class Life:
    """Runs a stand-in's configuration in a process of its own.

    Parameters
    ----------
    config : Path
        The configuration.
    base : Path
        Folder that relative names in it start from.

    Attributes
    ----------
    told : list of Heard
        Grows as long as it lives.
    said : deque of str
        Its last lines on stderr.
    """

    def __init__(self, config: Path, base: Path) -> None:
        self.told: list[Heard] = []
        self.said: deque[str] = deque(maxlen=_LAST_LINES)
        self.started_ns = time.monotonic_ns()
        module = "neurovocal.engine.cli.rehearsal_process"
        # A session of its own: Ctrl-C is for whoever watches, who then ends it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(config), str(base)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._threads = [
            Thread(target=read, daemon=True) for read in (self._listen, self._read)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> bool:
        """Whether it has ended, however it did."""
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it lives."""
        return self._process.poll()

    @property
    def began_ns(self) -> int | None:
        """When its sample 0 was heard, at the latest; None: it was never heard of."""
        return min(
            (
                one.heard_ns - one.header.at * NS // one.header.sample_rate
                for one in tuple(self.told)
                if one.header.kind != "stats"
            ),
            default=None,
        )

    def end(self) -> None:
        """Stop it in order; what does not end in time is killed."""
        if not self.ended:
            self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self.conclude()

    def kill(self) -> None:
        """End it at once."""
        if not self.ended:
            self._process.kill()
        self._process.wait()

    def conclude(self) -> None:
        """Wait until all that it said has been read."""
        for thread in self._threads:
            thread.join(_STOP_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                return  # it was killed while it wrote
            try:
                told = msgspec.json.decode(line, type=Told)
                header = decoder.decode(told.header)
            except msgspec.MsgspecError:  # whatever a plugin prints
                self.said.append(line.decode(errors="replace").rstrip())
                continue
            self.told.append(Heard(told.run, told.heard_ns, header))

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line.decode(errors="replace").rstrip())
